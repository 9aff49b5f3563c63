"""A robot of two joints and a camera, a clock to turn by hand, and messages that are looked at by their fields."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from qtransformer_datasets.rosbag.contract_entries import ActionTopic, CameraTopic, VectorTopic
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.motion import Command, JointMotion
from qtransformer_ros.arm.safety_limits import JointRange, SafetyLimits
from qtransformer_ros.control.effects import DecidedAction, Effects, Request
from qtransformer_ros.control.run_state import RunState
from qtransformer_ros.control.runtime import PolicyRuntime
from qtransformer_ros.control.runtime_settings import RuntimeSettings

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000
HZ = 10.0
CAMERA, JOINTS, TOOL = "camera", "joint_states", "ee_pose"
CONTRACT = TopicContract(
    control_hz=HZ,
    tolerance_s=0.5,
    cameras={"wrist": CameraTopic(topic=CAMERA, size=(4, 4))},
    proprio=(VectorTopic(topic=JOINTS, type="JointState", joints=("a", "b"), units=("rad",)),),
    action=(ActionTopic(topic="out", type="JointTrajectory", joints=("a", "b"), units=("rad",), low=(-3.0,), high=(3.0,)),),
)
LIMITS = SafetyLimits(
    joints={"a": JointRange(low=-1, high=1, velocity=1), "b": JointRange(low=-1, high=1, velocity=1)}, max_step_rad=0.5
)

RUNNING, PAUSED, HOLD, ESTOP, FAULT, IDLE = (
    RunState.running,
    RunState.paused,
    RunState.hold,
    RunState.estop,
    RunState.fault,
    RunState.idle,
)


@dataclass
class HandClock:
    mono_ns: int = 5 * 10**9
    time_ns: int = START_NS

    def monotonic_ns(self) -> int:
        return self.mono_ns

    def ros_ns(self) -> int:
        return self.time_ns

    def pass_s(self, seconds: float) -> None:
        self.mono_ns += round(seconds * 1e9)
        self.time_ns += round(seconds * 1e9)


def header(ns: int, frame: str = "") -> Any:
    return SimpleNamespace(stamp=SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9), frame_id=frame)


def image(ns: int, value: int = 0, size: tuple[int, int] = (4, 4), **changes: Any) -> Any:
    data = np.full(size[0] * size[1] * 3, value % 256, np.uint8)
    fields = {"height": size[0], "width": size[1], "step": size[1] * 3, "encoding": "rgb8", "is_bigendian": 0, "data": data}
    return SimpleNamespace(header=header(ns), **(fields | changes))


def joint_state(ns: int, position: tuple[float, ...] = (0.0, 0.0), name: tuple[str, ...] = ("a", "b")) -> Any:
    return SimpleNamespace(header=header(ns), name=list(name), position=list(position), velocity=[], effort=[])


def tool_pose(
    ns: int, position: tuple[float, ...] = (0.5, 0.5, 0.5), orientation: tuple[float, ...] = (0, 0, 0, 1), frame: str = ""
) -> Any:
    p, q = (SimpleNamespace(**dict(zip("xyzw", v, strict=False))) for v in (position, orientation))
    return SimpleNamespace(header=header(ns, frame), pose=SimpleNamespace(position=p, orientation=q))


def to_joints(action: np.ndarray) -> Command:
    return Command(motion=JointMotion(joints=("a", "b"), positions=action[None].astype(np.float64), times_s=(1 / HZ,)))


@dataclass
class Robot:
    """A runtime with the world around it: what it answers is kept, and its network answers when told to."""

    clock: HandClock
    runtime: PolicyRuntime
    heard: list[Effects] = field(default_factory=list)
    frame: int = 0
    position: tuple[float, float] = (0.0, 0.0)
    noise: float = 1e-12
    """What every measurement adds to the one before it: no encoder repeats itself."""

    def do(self, effects: Effects) -> Effects:
        self.heard.append(effects)
        return effects

    def see(self, *topics: str) -> None:
        """New samples of now."""
        self.frame += 1
        for topic in topics or (CAMERA, JOINTS):
            now = self.clock.time_ns
            noisy = (self.position[0] + self.noise * self.frame, self.position[1])
            made = image(now, self.frame) if topic == CAMERA else joint_state(now, noisy)
            self.do(self.runtime.receive(topic, tool_pose(now) if topic == TOOL else made))

    def ask(self) -> Request:
        """A tick on new samples, which has to end in a request."""
        self.see()
        request = self.do(self.runtime.tick()).request
        assert request is not None, self.runtime.reason
        return request

    def answer(self, request: Request, action: Any = (0.05, -0.05), value: float | None = 1.0, after_s: float = 0.02) -> Effects:
        self.clock.pass_s(after_s)
        action = np.asarray(action, np.float32)
        return self.do(self.runtime.decided(DecidedAction(request=request, action=action, value=value, seconds=after_s)))

    def period(self) -> None:
        """A whole period as it should be."""
        self.answer(self.ask())
        self.clock.pass_s(0.08)

    def run(self, *, heard: bool = False) -> "Robot":
        """Into RUNNING; `heard`: the e-stop's topic says that it is not pressed."""
        self.do(self.runtime.listeners(1))
        self.do(self.runtime.activate())
        if heard:
            self.do(self.runtime.estop_heard(False))
        self.see()
        if self.runtime.state.value == "PAUSED":
            self.do(self.runtime.start())
        else:
            self.do(self.runtime.watch())
        assert self.runtime.state.value == "RUNNING", self.runtime.reason
        self.heard.clear()
        self.clock.pass_s(0.01)
        return self

    @property
    def commands(self) -> list[Command]:
        return [e.command for e in self.heard if e.command]

    @property
    def holds(self) -> int:
        return sum(e.hold for e in self.heard)


def make(limits: SafetyLimits = LIMITS, contract: TopicContract = CONTRACT, pose_topic: str = "", **settings: Any) -> Robot:
    clock = HandClock()
    options = {"control_hz": HZ, "fresh_frames_to_resume": 3} | settings
    runtime = PolicyRuntime(
        contract,
        contract.action_spec(),
        limits,
        RuntimeSettings(**options),
        clock,
        to_command=to_joints,
        joint_topic=JOINTS,
        pose_topic=pose_topic,
        base_frame="base_link",
    )
    return Robot(clock, runtime)


def is_held(robot: Robot, reason: str, state: RunState = HOLD, holds: int = 1) -> None:
    assert robot.runtime.state is state, robot.runtime.reason
    assert robot.runtime.reason.startswith(reason), robot.runtime.reason
    assert robot.holds == holds


def recover(robot: Robot, frames: int = 3) -> None:
    for _ in range(frames):
        robot.clock.pass_s(0.01)
        robot.see()
    robot.do(robot.runtime.watch())

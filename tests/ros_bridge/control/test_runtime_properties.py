"""Whatever comes, in whatever order: what leaves is finite, within limits, and only while running."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qtransformer_ros.arm.motion import Command, PoseMotion, TwistMotion
from qtransformer_ros.arm.rotation import rotate
from qtransformer_ros.arm.safety_limits import SafetyLimits
from qtransformer_ros.control.effects import Effects, Request
from qtransformer_ros.control.run_state import RunState
from tests.ros_bridge.hand_robot import CAMERA, HZ, JOINTS, LIMITS, TOOL, Robot, image, joint_state, make, tool_pose

NUMBER = st.one_of(st.floats(-2, 2), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308]))
BOX = SafetyLimits(workspace_min=(0.4, 0.4, 0.4), workspace_max=(0.6, 0.6, 0.6), max_step_m=0.02, max_step_rad=0.1)
NUDGE = st.floats(-0.3, 0.3)


class AnyLife(RuleBasedStateMachine):
    """A robot to which anything happens; every answer of its runtime is judged as it comes."""

    robot: Robot

    @initialize(
        resume=st.booleans(), paused=st.booleans(), lockstep=st.booleans(), dry=st.booleans(), hearts=st.sampled_from([0.0, 0.4])
    )
    def begin(self, resume: bool, paused: bool, lockstep: bool, dry: bool, hearts: float) -> None:
        self.robot = make(
            auto_resume=resume,
            start_paused=paused,
            lockstep=lockstep,
            dry_run=dry,
            estop_timeout_s=hearts,
            fresh_frames_to_resume=1,
            max_identical_images=4,
        )
        self.dry, self.latched = dry, False
        self.requests: list[Request] = []
        self.judge(self.robot.runtime.listeners(1))
        self.judge(self.robot.runtime.activate())
        self.robot.see()

    def judge(self, found: Effects, before: RunState | None = None) -> None:
        if found.request:
            assert self.robot.runtime.state is RunState.running
            assert np.isfinite(found.request.observation["proprio"]).all()
            self.requests.append(found.request)
        if found.command or found.proposed:
            assert self.robot.runtime.state is RunState.running
            assert not found.hold
            assert not self.latched
            self.judge_motion(found.proposed)
        if self.dry:
            assert (found.command, found.hold) == (None, False)
        if found.hold:
            assert self.robot.runtime.state is not RunState.running
            assert before is RunState.running

    def judge_motion(self, command: Command | None) -> None:
        assert command is not None
        here = self.robot.runtime.measured.joints
        assert np.isfinite(command.motion.positions).all()
        for name, there in zip("ab", command.motion.positions[0], strict=True):
            own = LIMITS.joints[name]
            assert min(own.low, here[name]) - 1e-12 <= there <= max(own.high, here[name]) + 1e-12
            assert abs(there - here[name]) <= own.velocity / HZ * (1 + 1e-9)

    def do(self, event: str, *arguments: Any) -> Effects:
        before = self.robot.runtime.state
        found = getattr(self.robot.runtime, event)(*arguments)
        self.judge(found, before)
        return found

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 0.1, 0.3, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.robot.clock.pass_s(seconds)

    @rule(seconds=st.sampled_from([-100.0, -1.0, -0.01, 1.0, 1e6]))
    def time_jumps(self, seconds: float) -> None:
        self.robot.clock.time_ns += round(seconds * 1e9)

    @rule(positions=st.tuples(NUDGE, NUDGE), value=st.integers(0, 255))
    def good_samples(self, positions: tuple[float, float], value: int) -> None:
        self.robot.clock.pass_s(0.001)
        now = self.robot.clock.time_ns
        self.do("receive", CAMERA, image(now, value))
        self.do("receive", JOINTS, joint_state(now, positions))

    @rule(positions=st.lists(NUMBER, max_size=3), names=st.permutations(["a", "b", "c"]), ago=st.integers(-(10**9), 10**9))
    def any_joints(self, positions: list[float], names: list[str], ago: int) -> None:
        stamp = max(0, self.robot.clock.time_ns - ago)
        self.do("receive", JOINTS, joint_state(stamp, tuple(positions), tuple(names[: len(positions)])))

    @rule(broken=st.sampled_from([{"data": b""}, {"encoding": ""}, {"step": -1}, {"height": 10**9}, {"data": None}]))
    def broken_image(self, broken: dict[str, Any]) -> None:
        self.do("receive", CAMERA, image(self.robot.clock.time_ns, **broken))

    @rule()
    def tick(self) -> None:
        self.do("tick")

    @rule()
    def watch(self) -> None:
        self.do("watch")

    @rule(positions=st.tuples(NUDGE, NUDGE), action=st.tuples(NUDGE, NUDGE))
    def a_good_period(self, positions: tuple[float, float], action: tuple[float, float]) -> None:
        """Or most lives would never see a command."""
        self.do("start")
        self.good_samples(positions, self.robot.clock.time_ns // 10**6 % 256)
        request = self.do("tick").request
        if request:
            self.judge(self.robot.answer(request, action, after_s=0.0), RunState.running)

    @rule(action=st.lists(NUMBER, min_size=1, max_size=3), old=st.booleans(), after_s=st.sampled_from([0.0, 0.2]))
    def answer(self, action: list[float], old: bool, after_s: float) -> None:
        if self.requests:
            before = self.robot.runtime.state
            with np.errstate(over="ignore"):
                found = self.robot.answer(self.requests[0 if old else -1], action, after_s=after_s)
            self.judge(found, before)

    @rule()
    def inference_fails(self) -> None:
        self.do("failed", RuntimeError("out of memory"))

    @rule(event=st.sampled_from(["start", "stop", "reset", "activate", "deactivate"]))
    def person(self, event: str) -> None:
        found = self.do(event)
        if self.latched:
            assert not found.hold

    @rule(pressed=st.booleans(), topic=st.booleans())
    def estop(self, pressed: bool, topic: bool) -> None:
        before = self.robot.runtime.state
        found = self.do("estop_heard" if topic else "estop", pressed)
        if pressed:
            assert self.robot.runtime.state is RunState.estop or before is RunState.idle
            self.latched = True
        elif not topic and not found.refused:
            self.latched = False
            assert self.robot.runtime.state is not RunState.running or before is RunState.running

    @rule(enabled=st.booleans(), count=st.integers(0, 1))
    def world(self, enabled: bool, count: int) -> None:
        self.do("enable_motion", enabled)
        self.do("listeners", count)

    @invariant()
    def a_latched_stop_stays(self) -> None:
        if getattr(self, "latched", False):
            assert self.robot.runtime.state in (RunState.estop, RunState.idle)

    @invariant()
    def the_status_can_be_told(self) -> None:
        if hasattr(self, "robot"):
            found = self.robot.runtime.snapshot()
            assert bool(found.reason) == (found.state is not RunState.running)


TestAnyLife = pytest.mark.timeout(120)(AnyLife.TestCase)
AnyLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    st.lists(st.tuples(st.lists(NUMBER, min_size=6, max_size=6), st.tuples(NUDGE, NUDGE, NUDGE)), max_size=5),
    st.booleans(),
    st.tuples(NUDGE, NUDGE, NUDGE, st.floats(0.5, 1)),
)
@settings(max_examples=60)
def test_tools_stay_in_their_workspace(life: list[Any], poses: bool, turn: tuple[float, float, float, float]) -> None:
    robot = make(BOX, pose_topic=TOOL, auto_resume=True, fresh_frames_to_resume=1)
    orientation = np.array(turn) / math.hypot(*turn)
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    for numbers, nudge in life:
        robot.clock.pass_s(0.1)
        robot.see(CAMERA, JOINTS)
        here = 0.5 + np.array(nudge)
        robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, tuple(here), tuple(orientation))))
        robot.do(robot.runtime.start())
        request = robot.do(robot.runtime.tick()).request
        if request is None:
            continue
        first, second = np.array(numbers[:3]), np.array(numbers[3:])
        wanted = (
            PoseMotion(position=first, orientation=np.array([*second, 1.0])) if poses else TwistMotion(linear=first, angular=second)
        )
        robot.runtime._to_command = lambda action, wanted=wanted: Command(motion=wanted)
        command = robot.answer(request, (0.0, 0.0)).command
        if command is None:
            continue
        motion = command.motion
        if isinstance(motion, TwistMotion):
            assert np.linalg.norm(motion.angular) / HZ <= BOX.max_step_rad * (1 + 1e-9)
            end = here + rotate(orientation, motion.linear) / HZ
        else:
            assert isinstance(motion, PoseMotion)
            end = motion.position
        assert np.isfinite(end).all()
        assert np.linalg.norm(end - here) <= BOX.max_step_m * (1 + 1e-9)
        assert (end >= np.minimum(here, BOX.workspace_min) - 1e-9).all()
        assert (end <= np.maximum(here, BOX.workspace_max) + 1e-9).all()


FIELD = st.one_of(st.none(), st.integers(-5, 10**6), st.text(max_size=5), st.binary(max_size=60), st.lists(NUMBER, max_size=4))


@given(
    st.sampled_from([CAMERA, JOINTS, TOOL, "elsewhere"]),
    st.dictionaries(st.sampled_from(["height", "width", "step", "encoding", "data", "name", "position", "pose"]), FIELD),
)
def test_no_message_crashes_or_becomes_an_observation_of_zeros(topic: str, fields: dict[str, Any]) -> None:
    robot = make(BOX, pose_topic=TOOL)
    made = {CAMERA: image, TOOL: tool_pose}.get(topic, joint_state)(robot.clock.time_ns)
    robot.do(robot.runtime.receive(topic, SimpleNamespace(**(vars(made) | fields))))
    counts = robot.runtime.snapshot().topics.get(topic, {})
    assert sum(counts.values()) == (topic != "elsewhere")
    if not fields:
        assert "rejected" not in counts

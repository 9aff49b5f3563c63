"""An arm and a gripper that publish on one topic, each its own joints: each is fresh, stale and refused by itself.

The arm tells a and b, the gripper g; whichever is the faster.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtransformer_datasets.rosbag.contract_entries import TickRule, VectorTopic
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, observation_digest
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.control.effects import Request
from tests.ros_bridge.hand_robot import (
    CAMERA,
    CONTRACT,
    JOINTS,
    MS,
    PAUSED,
    RUNNING,
    START_NS,
    image,
    is_held,
    joint_state,
    make,
)
from tests.ros_bridge.kuka_bags import Playback
from tests.ros_bridge.kuka_bags import header as sent_header
from tests.ros_bridge.kuka_bags import make as message_of

ARM, GRIPPER = f"{JOINTS} (a and 1 more)", f"{JOINTS} (g)"
BOTH = replace(CONTRACT, proprio=(*CONTRACT.proprio, VectorTopic(topic=JOINTS, type="JointState", joints=("g",), units=("m",))))


class Pair:
    """A robot whose publishers tell how long they have run [s]: the arm a, and b = -a, the gripper g."""

    def __init__(self, contract: TopicContract = BOTH, **settings: Any) -> None:
        self.robot = make(contract=contract, **settings)
        self.requests: list[Request] = []
        self.told: dict[str, float] = {}
        self.robot.do(self.robot.runtime.listeners(1))
        self.robot.do(self.robot.runtime.activate())

    @property
    def now_ms(self) -> int:
        return (self.robot.clock.time_ns - START_NS) // MS

    def see(self) -> None:
        self.robot.do(self.robot.runtime.receive(CAMERA, image(self.robot.clock.time_ns, self.now_ms)))

    def arm(self) -> None:
        self.tell(("b", "a"), (-self.now_ms / 1e3, self.now_ms / 1e3))

    def gripper(self) -> None:
        self.tell(("g",), (self.now_ms / 1e3,))

    def tell(self, names: tuple[str, ...], positions: Sequence[float]) -> None:
        message = joint_state(self.robot.clock.time_ns, tuple(positions), names)
        self.robot.do(self.robot.runtime.receive(JOINTS, message))
        self.told |= dict(zip(names, positions, strict=True))

    def live(self, seconds: float, arm_ms: int | None = 20, gripper_ms: int | None = 20) -> "Pair":
        """Millisecond by millisecond, the camera and decisions every 100 ms; a publisher without a period is silent."""
        for _ in range(round(seconds * 1e3)):
            self.robot.clock.pass_s(1e-3)
            for period, publish in ((arm_ms, self.arm), (gripper_ms, self.gripper), (100, self.see)):
                if period and self.now_ms % period == 0:
                    publish()
            if self.now_ms % 100 == 0:
                self.decide()
            self.robot.do(self.robot.runtime.watch())
        return self

    def decide(self) -> None:
        request = self.robot.do(self.robot.runtime.tick()).request
        if request is not None:
            self.requests.append(request)
            self.robot.answer(request, after_s=0.0)

    def run(self) -> "Pair":
        self.live(0.2)
        started = self.robot.do(self.robot.runtime.start())
        assert not started.refused, started.refused
        self.robot.heard.clear()
        return self


@pytest.mark.parametrize(("arm_ms", "gripper_ms"), [(20, 100), (100, 20), (20, 20), (70, 30), (30, 70)])
def test_an_observation_is_made_of_the_latest_of_each_whichever_is_the_faster(arm_ms: int, gripper_ms: int) -> None:
    pair = Pair().run().live(2.0, arm_ms, gripper_ms)
    assert pair.robot.runtime.state is RUNNING, pair.robot.runtime.reason
    assert len(pair.requests) == 20
    for number, request in enumerate(pair.requests, 1):
        now = 200 + 100 * number
        arm, gripper = (max(now // period * period, 200) for period in (arm_ms, gripper_ms))
        assert request.observation["proprio"].tolist() == np.float32([arm / 1e3, -arm / 1e3, gripper / 1e3]).tolist()
        assert request.stamps == {CAMERA: START_NS + now * MS, ARM: START_NS + arm * MS, GRIPPER: START_NS + gripper * MS}
    assert pair.robot.runtime.measured.joints == {name: pair.told[name] for name in ("a", "b")}


@pytest.mark.parametrize("gripper_ms", [1, 5, 100])
def test_a_gripper_that_nobody_needs_disturbs_no_arm(gripper_ms: int) -> None:
    """Its messages may even be the more frequent by far."""
    pair = Pair(CONTRACT).run().live(1.0, 100, gripper_ms)
    assert pair.robot.runtime.state is RUNNING, pair.robot.runtime.reason
    assert pair.requests[-1].stamps.keys() == {CAMERA, JOINTS}
    counts = pair.robot.runtime.snapshot().topics[JOINTS]
    assert counts == {"taken": 10 + 10, "foreign": 10 + 1000 // gripper_ms}


@pytest.mark.parametrize(("silent", "part"), [("arm_ms", ARM), ("gripper_ms", GRIPPER)])
def test_each_is_stale_by_itself(silent: str, part: str) -> None:
    pair = Pair(max_sync_skew_s=1.0).run()
    pair.live(0.19, **{silent: None})
    assert pair.robot.runtime.state is RUNNING
    pair.live(0.02, **{silent: None})
    is_held(pair.robot, f"joints_stale: {part}: nothing new for 0.20 s")
    pair.live(0.3)
    assert pair.robot.runtime.state is PAUSED
    assert not pair.robot.do(pair.robot.runtime.start()).refused


def test_one_that_has_not_come_yet_is_waited_for_by_name() -> None:
    pair = Pair()
    pair.see()
    assert pair.robot.do(pair.robot.runtime.start()).refused == f"cannot start: joints_stale: {JOINTS}: nothing came yet"
    pair.live(0.3, gripper_ms=None)
    assert pair.robot.do(pair.robot.runtime.start()).refused == f"cannot start: joints_stale: {GRIPPER}: nothing came yet"
    pair.live(0.1)
    assert not pair.robot.do(pair.robot.runtime.start()).refused


def test_numbers_of_one_that_are_none_hold_though_the_other_goes_on() -> None:
    pair = Pair().run()
    for n in range(3):
        assert pair.robot.runtime.state is RUNNING, n
        pair.live(0.02, gripper_ms=None)
        pair.tell(("g",), (np.nan,))
    is_held(pair.robot, f"rejected: {JOINTS}: not finite: g = nan")


@pytest.mark.parametrize("rival", [("a", "b", "g"), ("g",), ("a", "x")])
def test_a_second_publisher_of_a_joint_holds_and_is_never_believed(rival: tuple[str, ...]) -> None:
    """As a display's joint_state_publisher, which says zero of all joints that it knows."""
    whole = replace(BOTH, proprio=(replace(BOTH.proprio[0], joints=("a", "b", "g"), units=("1",)),))
    pair = Pair(whole if rival == ("g",) else BOTH)
    if rival == ("g",):
        pair.gripper, pair.arm = lambda: None, lambda: pair.tell(("g", "b", "a"), (0.3, 0.2, 0.1))
    pair.run()
    for n in range(3):
        assert pair.robot.runtime.state is RUNNING, n
        pair.live(0.1)
        before = pair.robot.runtime.measured.joints
        pair.tell(rival, (0.0,) * len(rival))
        assert pair.robot.runtime.measured.joints == before
    pair.live(0.01)
    is_held(pair.robot, f"rejected: {JOINTS}: joints ")
    assert "expected one publisher, found two" in pair.robot.runtime.reason
    assert all(request.observation["proprio"].any() for request in pair.requests)
    pair.live(1.0)  # a person has to see to it
    assert "expected one publisher" in pair.robot.do(pair.robot.runtime.start()).refused
    pair.robot.do(pair.robot.runtime.reset())
    assert not pair.robot.do(pair.robot.runtime.start()).refused


def test_a_publisher_that_is_replaced_by_one_that_names_others_is_believed_once_it_was_silent() -> None:
    """As where a driver is started again with a gripper of its own."""
    pair = Pair(max_sync_skew_s=1.0).run()
    pair.live(0.25, gripper_ms=None)
    is_held(pair.robot, f"joints_stale: {GRIPPER}")
    for _ in range(16):  # three images
        pair.live(0.02, gripper_ms=None)
        pair.tell(("g", "lid"), (0.7, 0.0))
    assert pair.robot.runtime.state is PAUSED
    assert not pair.robot.do(pair.robot.runtime.start()).refused
    pair.live(0.1, gripper_ms=None)
    assert pair.requests[-1].observation["proprio"][2] == np.float32(0.7)


def test_in_lockstep_a_set_is_complete_with_both() -> None:
    robot = make(contract=BOTH, lockstep=True)
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.do(robot.runtime.start())
    assert robot.runtime.state is RUNNING
    for k in range(3):
        now = robot.clock.time_ns
        robot.do(robot.runtime.receive(CAMERA, image(now, k)))
        robot.do(robot.runtime.receive(JOINTS, joint_state(now, (0.1 * k, 0.2), ("a", "b"))))
        assert robot.do(robot.runtime.tick()).request is None
        robot.do(robot.runtime.receive(JOINTS, joint_state(now, (0.3,), ("g",))))
        request = robot.do(robot.runtime.tick()).request
        assert request is not None
        assert request.observation["proprio"].tolist() == np.float32([0.1 * k, 0.2, 0.3]).tolist()
        robot.answer(request)
        robot.clock.time_ns += 100 * MS


def test_a_rival_stays_one_in_lockstep_however_long_a_step_takes() -> None:
    robot = make(contract=BOTH, lockstep=True)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (0.1, 0.2), ("a", "b"))))
    robot.clock.pass_s(100)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (0.0,), ("b",))))
    assert robot.runtime.measured.joints == {"a": 0.1, "b": 0.2}
    assert "joints b expected one publisher, found two" in robot.runtime.complaint()


@pytest.mark.parametrize(("arm_ms", "gripper_ms"), [(20, 70), (70, 20)])
@pytest.mark.parametrize("by_ticks", [True, False])
def test_a_bag_of_it_gives_what_the_robot_saw(tmp_path: Path, arm_ms: int, gripper_ms: int, by_ticks: bool) -> None:
    """To the last bit, by the ticks that the policy reported, whose digests the reader checks, or by those of the clock."""
    rule = TickRule(topic="/consumed") if by_ticks else None
    contract = replace(BOTH, ticks=rule, tolerance_s=0.15).resolved()
    player, pair, sent = Playback(tmp_path, contract, auto=False), Pair().run(), list[Any]()
    first = len(pair.requests)

    def receive(topic: str, message: Any, hear: Any = pair.robot.runtime.receive) -> Any:
        kind = "sensor_msgs/msg/Image" if topic == CAMERA else "sensor_msgs/msg/JointState"
        own = {name: value for name, value in vars(message).items() if name != "header"}
        if topic != CAMERA:
            own |= {name: np.array(own[name], np.float64) for name in ("position", "velocity", "effort")}
        sent.append(("/" + topic, kind, message_of(kind, header=sent_header(pair.robot.clock.time_ns), **own)))
        return hear(topic, message)

    pair.robot.runtime.receive = receive
    player.recorder.start()
    for _ in range(12):
        pair.live(0.1, arm_ms, gripper_ms)
        request = pair.requests[-1]
        said = {"/" + part: str(stamp) for part, stamp in request.stamps.items()}
        said[DIGEST_KEY] = observation_digest(request.observation)
        values = [message_of("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in said.items()]
        status = message_of("diagnostic_msgs/msg/DiagnosticStatus", level=0, name="", message="", hardware_id="", values=values)
        array = message_of("diagnostic_msgs/msg/DiagnosticArray", header=sent_header(pair.robot.clock.time_ns), status=[status])
        sent.append(("/consumed", "diagnostic_msgs/msg/DiagnosticArray", array))
        sent.append(("/out", "trajectory_msgs/msg/JointTrajectory", trajectory(pair.robot.clock.time_ns)))
        for number, (topic, kind, message) in enumerate(sent):
            player.send((topic, kind, pair.robot.clock.time_ns + number, message))
        sent.clear()
    player.recorder.stop(0.0)
    player.recorder.tick(10.0)
    assert player.recorder.last is not None
    assert player.recorder.last.is_ok, player.recorder.last.text()
    episode = BagEpisodes(tmp_path / player.recorder.last.name, contract=contract, outcome="timeout").read(0)
    seen = np.stack([request.observation["proprio"] for request in pair.requests[first:]])
    assert len(seen) == 12
    assert np.array_equal(episode.proprio[: len(seen)], seen[: len(episode.proprio)])
    assert len(episode) >= 11


def trajectory(stamp: int) -> Any:
    duration, none = message_of("builtin_interfaces/msg/Duration", sec=0, nanosec=100 * MS), np.zeros(0)
    point = message_of(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=np.array([0.1, 0.2]),
        velocities=none,
        accelerations=none,
        effort=none,
        time_from_start=duration,
    )
    return message_of("trajectory_msgs/msg/JointTrajectory", header=sent_header(stamp), joint_names=["a", "b"], points=[point])

"""`qtransformer-sim` as a process: its topics, its services, its faults."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qtransformer.types import Observation
from qtransformer_datasets.rosbag.ros_messages import encode_observation, stamp_ns
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from tests.ros_nodes.harness import LATCHED, ROOT, Graph

NODE = "qtransformer_ros.nodes.sim_node"
HZ = 4.0
JOINTS = [f"joint_{i + 1}" for i in range(7)]
CONTRACT = TopicContract.load(ROOT / "datasets" / "contracts" / "simulated_kuka.yaml")


class Commander:
    """Speaks to the simulator as a policy does, through the topics of the contract."""

    def __init__(self, graph: Graph) -> None:
        self.probe = graph.probe
        listen = self.probe.listen
        self.images = listen("camera/wrist/image_raw", Image)
        self.joints, self.tool = listen("joint_states", JointState), listen("tool_state", JointState)
        self.events, self.rewards = listen("episode/event", String), listen("qtransformer_sim/reward", Float32)
        self.done, self.success = listen("qtransformer_sim/done", Bool), listen("qtransformer_sim/success", Bool)
        self.status = listen("qtransformer_sim/status", DiagnosticStatus, LATCHED)
        advertise = self.probe.publisher
        self.twists = advertise("servo_node/delta_twist_cmds", TwistStamped)
        self.grippers = advertise("gripper_controller/commands", Float64MultiArray)
        self.terminates = advertise("policy/terminate", Bool)
        self.trajectories = advertise("joint_trajectory_controller/joint_trajectory", JointTrajectory)
        self.probe.wait_for(lambda: self.joints and self.tool and self.status, "the first states")
        self.before = 0
        """The newest stamp before this episode [ns]."""

    def twist(self, *velocity: float) -> None:
        message = TwistStamped()
        message.twist.linear.x, message.twist.linear.y, message.twist.linear.z, message.twist.angular.z = map(float, velocity)
        self.twists.publish(message)

    def act(self, action: np.ndarray) -> None:
        """A full command: action (6,) in robot units."""
        self.twist(*(float(v) * HZ for v in action[:4]))
        self.grippers.publish(Float64MultiArray(data=[float(action[4])]))
        self.terminates.publish(Bool(data=bool(action[5] > 0.5)))

    def go(self, positions: Any, seconds: float) -> None:
        """A trajectory of one point."""
        point = JointTrajectoryPoint(positions=[float(p) for p in positions])
        point.time_from_start.sec, point.time_from_start.nanosec = int(seconds), round(seconds % 1 * 1e9)
        self.trajectories.publish(JointTrajectory(joint_names=JOINTS, points=[point]))

    def observation(self) -> Observation:
        """The newest observation, encoded as training encodes it."""
        topics = {"camera/wrist/image_raw": self.images, "joint_states": self.joints, "tool_state": self.tool}
        return encode_observation(CONTRACT, {topic: heard[-1] for topic, heard in topics.items()})

    def reset(self) -> Observation:
        """Start an episode; returns its first observation (in lockstep)."""
        self.before = stamp_ns(self.joints[-1].header.stamp)
        for heard in (self.events, self.rewards, self.done, self.success):
            heard.clear()
        assert self.probe.trigger("qtransformer_sim/reset").success
        return self.next_observation(1)

    def of_episode(self, heard: list[Any]) -> dict[int, Any]:
        """By stamp [ns], what was measured in this episode: the first observation may come twice, for who came late."""
        return {stamp: m for m in heard if (stamp := stamp_ns(m.header.stamp)) > self.before}

    def next_observation(self, count: int) -> Observation:
        """The `count`-th observation of the episode (in lockstep)."""
        topics = (self.images, self.joints, self.tool)
        self.probe.wait_for(lambda: min(len(self.of_episode(t)) for t in topics) >= count, f"observation {count} of the episode")
        return self.observation()

    def measured(self) -> np.ndarray:
        return np.array(self.joints[-1].position)

    def value(self, key: str) -> str:
        """A value of the newest status."""
        return next(v.value for v in self.status[-1].values if v.key == key)

    def wait_until_still(self) -> np.ndarray:
        """Wait until the joints have not moved for 20 states; returns where they are."""
        self.joints.clear()
        self.probe.wait_for(
            lambda: len(self.joints) > 20 and np.ptp([j.position for j in self.joints[-20:]], 0).max() < 1e-3, "rest"
        )
        return self.measured()


@pytest.fixture
def lockstep(graph: Graph) -> Iterator[Commander]:
    graph.start(NODE, lockstep=True, seed=3)
    return Commander(graph)


@pytest.fixture
def live(graph: Graph) -> Iterator[Commander]:
    graph.start(NODE, seed=3, image_hz=10)
    return Commander(graph)


def test_everything_arrives_with_one_stamp(graph: Graph, lockstep: Commander) -> None:
    probe = graph.probe
    pose, clock = probe.listen("ee_pose", PoseStamped), probe.listen("/clock", Clock)
    info = probe.listen("camera/wrist/camera_info", CameraInfo)
    png = probe.listen("camera/wrist/image_raw/compressed", CompressedImage)
    lockstep.reset()
    probe.wait_for(lambda: pose and clock and info and png, "pose, clock, camera info, compressed image")
    stamps = {stamp_ns(m[-1].header.stamp) for m in (lockstep.images, lockstep.joints, lockstep.tool, pose, info, png)}
    assert stamps == {stamp_ns(clock[-1].clock)}
    assert lockstep.images[-1].header.frame_id == "wrist_optical_frame"
    assert (info[-1].height, info[-1].width) == (64, 64)
    np.testing.assert_array_equal(_decode(png[-1]), lockstep.observation()["images"]["wrist"])


def test_lockstep_steps_once_per_full_command(lockstep: Commander) -> None:
    lockstep.reset()
    first = stamp_ns(lockstep.images[-1].header.stamp)
    for _ in range(3):
        lockstep.twist(0.1, 0, 0, 0)
    lockstep.grippers.publish(Float64MultiArray(data=[0.0]))
    lockstep.probe.spin_for(0.5)
    assert not lockstep.rewards
    lockstep.terminates.publish(Bool(data=False))
    lockstep.next_observation(2)
    lockstep.probe.spin_for(0.5)
    assert len(lockstep.rewards) == 1
    assert list(lockstep.of_episode(lockstep.images)) == [first, first + 250_000_000]


def test_an_episode_is_that_of_the_environment_bit_for_bit(lockstep: Commander) -> None:
    """The scripted expert, blindfolded: its actions from an environment in this process, sent over topics to the other."""
    from qtransformer_sim import ScriptedExpert, make_env

    env = make_env()
    expert = ScriptedExpert(env)
    expected, _ = env.reset(seed=3)
    observation, done, steps = lockstep.reset(), False, 0
    info: dict[str, Any] = {}
    while not done:
        np.testing.assert_array_equal(observation["images"]["wrist"], expected["images"]["wrist"])
        np.testing.assert_array_equal(observation["proprio"], expected["proprio"])
        action = env.action_spec.to_units(env.action_spec.to_scaled(expert.act(expected)))
        expected, _, terminated, truncated, info = env.step(action)
        lockstep.act(action)
        steps, done = steps + 1, terminated or truncated
        observation = lockstep.next_observation(steps + 1)
    env.close()
    topics = (lockstep.done, lockstep.rewards, lockstep.success)  # no order holds between topics
    lockstep.probe.wait_for(lambda: len(lockstep.events) == 2 and all(len(t) == steps for t in topics), "the outcome")
    assert [e.data for e in lockstep.events] == ["start", "success" if info["success"] else "failure"]
    assert [d.data for d in lockstep.done] == [False] * (steps - 1) + [True]
    assert lockstep.rewards[-1].data == float(info["success"])
    assert lockstep.success[-1].data == info["success"]
    assert lockstep.value("commands_rejected") == "0"


def test_a_reset_with_a_seed_repeats_bit_for_bit(graph: Graph, lockstep: Commander) -> None:
    def play(seed: int) -> list[bytes]:
        assert graph.probe.set_parameters("qtransformer_sim", seed=seed) == {}
        lockstep.reset()
        for count in range(2, 5):
            lockstep.act(np.array([0.03, 0.0, -0.05, 0.2, 0.0, 0.0], np.float32))
            lockstep.next_observation(count)
        return [bytes(m.data) for m in lockstep.of_episode(lockstep.images).values()]

    first = play(11)
    assert play(12) != first
    assert play(11) == first


def test_a_listener_that_came_late_gets_the_first_observation(graph: Graph) -> None:
    graph.start(NODE, lockstep=True)
    status = graph.probe.listen("qtransformer_sim/status", DiagnosticStatus, LATCHED)
    graph.probe.wait_for(lambda: status, "the simulator")
    images = graph.probe.listen("camera/wrist/image_raw", Image)
    graph.probe.wait_for(lambda: images, "the first observation")


def test_live_states_and_images_come_at_their_rates(live: Commander) -> None:
    live.reset()
    live.joints.clear()
    live.images.clear()
    live.probe.wait_for(lambda: len(live.images) > 10, "images")
    stamps = np.array([stamp_ns(m.header.stamp) for m in live.images]) / 1e9
    assert np.median(np.diff(stamps)) == pytest.approx(0.1, abs=0.02)  # a busy machine lets some come late
    stamps = np.array([stamp_ns(m.header.stamp) for m in live.joints]) / 1e9
    assert np.median(np.diff(stamps)) == pytest.approx(0.01, rel=0.3)


def test_a_trajectory_ends_at_its_target(live: Commander) -> None:
    target = live.measured() + np.linspace(-0.2, 0.2, 7)
    live.go(target, 0.5)
    live.probe.wait_for(lambda: np.abs(live.measured() - target).max() < 0.005, "the target")
    np.testing.assert_allclose(live.wait_until_still(), target, atol=0.005)


def test_a_bad_trajectory_is_refused_and_counted(live: Commander) -> None:
    before = live.wait_until_still()
    live.go([*before[:6], np.nan], 0.5)
    live.probe.wait_for(lambda: live.value("commands_rejected") == "1", "the count")
    assert "finite" in live.value("last_rejection")
    np.testing.assert_allclose(live.wait_until_still(), before, atol=0.002)


def test_a_twist_runs_out(live: Commander) -> None:
    before = live.wait_until_still()
    live.twist(0.0, 0.0, 0.1, 0.0)
    live.probe.wait_for(lambda: np.abs(live.measured() - before).max() > 0.01, "motion")
    live.wait_until_still()


def test_the_estop_freezes_and_is_latched(graph: Graph, live: Commander) -> None:
    estop = graph.probe.publisher("estop", Bool)
    start = live.measured()
    live.go(start + 1.0, 4.0)
    graph.probe.wait_for(lambda: np.abs(live.measured() - start).max() > 0.05, "motion")
    estop.publish(Bool(data=True))
    graph.probe.wait_for(lambda: live.status[-1].message == "ESTOP", "the e-stop")
    frozen = live.wait_until_still()
    assert np.abs(frozen - start).max() < 0.9
    estop.publish(Bool(data=False))
    live.go(start, 0.2)
    graph.probe.wait_for(lambda: live.value("commands_rejected") == "1", "the refusal")
    np.testing.assert_allclose(live.wait_until_still(), frozen, atol=0.005)
    assert graph.probe.set_bool("qtransformer_sim/estop", False).success
    np.testing.assert_allclose(live.wait_until_still(), frozen, atol=0.005)
    live.go(start, 0.5)
    graph.probe.wait_for(lambda: np.abs(live.measured() - start).max() < 0.005, "motion after the release")


def test_a_pause_stops_time(graph: Graph, live: Commander) -> None:
    clock = graph.probe.listen("/clock", Clock)
    graph.probe.wait_for(lambda: clock, "the clock")
    graph.probe.set_bool("qtransformer_sim/pause", True)
    graph.probe.spin_for(0.2)
    clock.clear()
    graph.probe.spin_for(0.5)
    assert not clock
    graph.probe.set_bool("qtransformer_sim/pause", False)
    graph.probe.wait_for(lambda: clock, "the clock again")


def test_an_episode_times_out(graph: Graph) -> None:
    graph.start(NODE, max_steps=2, real_time_factor=0)
    live = Commander(graph)
    live.reset()
    # The episode that was running before may time out as the reset is asked for, and its event come first.
    graph.probe.wait_for(lambda: [e.data for e in live.events][-2:] == ["start", "timeout"], "the time-out")


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Commander], bool]]] = {
    "nan_joint": ({"nan_joint": "joint_2"}, lambda c: bool(np.isnan(c.joints[-1].position[1]))),
    "joint_noise": ({"joint_noise": 0.2}, lambda c: np.std([j.position[0] for j in c.joints[-30:]]) > 0.1),
    "shuffle_joints": ({"shuffle_joints": True}, lambda c: c.joints[-1].name != JOINTS),
    "clock_jump_s": ({"clock_jump_s": -30.0}, lambda c: c.joints[-1].header.stamp.sec < 0),
    "drop_prob": ({"drop_prob": 1.0}, lambda c: not _more(c, c.joints) and not _more(c, c.images)),
    "camera_freeze": (
        {"camera_freeze": True},
        lambda c: _more(c, c.images) and len({stamp_ns(m.header.stamp) for m in c.images[-3:]}) == 1,
    ),
    "camera_stick": (
        {"camera_stick": True},
        lambda c: _repeats(c, c.images, lambda m: bytes(m.data)),
    ),
    "state_stick": (
        {"state_stick": True},
        lambda c: _repeats(c, c.joints, lambda m: tuple(m.position)),
    ),
    "image_delay_ms": (
        {"image_delay_ms": 500.0},
        lambda c: bool(c.images) and stamp_ns(c.joints[-1].header.stamp) - stamp_ns(c.images[-1].header.stamp) > 400_000_000,
    ),
}


def _more(commander: Commander, heard: list[Any]) -> bool:
    """Whether at least three more messages come within half a second."""
    before = len(heard)
    commander.probe.spin_for(0.5)
    return len(heard) >= before + 3


def _repeats(commander: Commander, heard: list[Any], content: Callable[[Any], Any]) -> bool:
    """Whether what comes says the same again and again, under new stamps."""
    more, newest = _more(commander, heard), heard[-3:]
    return more and len({stamp_ns(m.header.stamp) for m in newest}) == 3 and len({content(m) for m in newest}) == 1


def _decode(png: CompressedImage) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_faults_come_and_go_while_it_runs(graph: Graph, live: Commander) -> None:
    live.go(live.measured() + np.eye(7)[0], 60.0)  # a moving camera sees something else in every image
    for name, (settings, visible) in FAULTS.items():
        assert not visible(live), name
        assert graph.probe.set_parameters("qtransformer_sim", **settings) == {}
        graph.probe.wait_for(lambda visible=visible: visible(live), name)
        neutral = {key: type(value)() for key, value in settings.items()}
        assert graph.probe.set_parameters("qtransformer_sim", **neutral) == {}
        graph.probe.wait_for(lambda visible=visible: not visible(live), f"the end of {name}")
    refused = graph.probe.set_parameters("qtransformer_sim", drop_prob=1.5, nan_joint="elbow", lockstep=True)
    assert set(refused) == {"drop_prob", "nan_joint", "lockstep"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [True, False])
def test_it_ends_by_signals_with_code_0(graph: Graph, number: signal.Signals, mode: bool) -> None:
    sim = graph.start(NODE, lockstep=mode)
    Commander(graph)
    assert sim.stop(number) == 0
    assert "Traceback" not in sim.output


def test_a_wrong_camera_is_one_sentence(graph: Graph) -> None:
    sim = graph.start(NODE, cameras=["wrst:64x64"])
    assert sim.wait() == 1
    assert "camera must be one of" in sim.output
    assert "Traceback" not in sim.output

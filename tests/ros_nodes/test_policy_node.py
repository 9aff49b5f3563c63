"""The policy node as a process of its own, on a robot that the test plays."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qtransformer import Policy
from qtransformer_ros.nodes.policy_outputs import obeys
from tests.ros_bridge.tiny_policy import URDF, write_contract, write_policy
from tests.ros_nodes.fake_robot import FakeRobot
from tests.ros_nodes.harness import LATCHED, Graph, NodeProcess, Probe

NODE = "/qtransformer_policy"
ARM, GRIPPER = "arm/joint_trajectory", "gripper"
QUICK = {"image_timeout_s": 0.5, "joint_timeout_s": 0.3}


class Deployed:
    """The node, its robot, and what it says."""

    def __init__(self, graph: Graph, folder: Path, *, listen: bool = True, **parameters: Any) -> None:
        self.graph, self.probe = graph, graph.probe
        self.contract = write_contract(folder)
        self.checkpoint = write_policy(folder, self.contract)
        (folder / "arm.urdf").write_text(URDF)
        self.statuses = self.probe.listen(f"{NODE}/status", DiagnosticStatus, LATCHED)
        self.motions = self.probe.listen(ARM, JointTrajectory) if listen else []
        self.switches = self.probe.listen(GRIPPER, Bool) if listen else []
        self.robot = FakeRobot(self.probe)
        own = {
            "checkpoint": str(self.checkpoint),
            "contract": str(self.contract),
            "urdf": str(folder / "arm.urdf"),
            "device": "cpu",
            "allow_slow": True,
            "start_paused": False,
            **QUICK,
        }
        self.process: NodeProcess = graph.start("qtransformer_ros.nodes.policy_node", **{**own, **parameters})

    @property
    def status(self) -> DiagnosticStatus:
        return self.statuses[-1]

    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.status.values}

    def is_in(self, state: str) -> bool:
        return bool(self.statuses) and self.values()["state"] == state

    def wait_for(self, state: str, timeout: float = 20.0) -> None:
        self.probe.wait_for(lambda: self.is_in(state), f"state {state}", timeout)

    def run(self) -> None:
        """Configure, activate, and wait for the first commands."""
        assert self.probe.transition(NODE, "configure", 60), self.status.message
        assert self.probe.transition(NODE, "activate"), self.status.message
        self.wait_for("RUNNING")
        self.probe.wait_for(lambda: len(self.motions) > 2, "commands")

    def last_is_a_hold(self) -> bool:
        """The last motion is the measured pose, once."""
        last = self.motions[-1]
        measured = [self.robot.joints[name] for name in last.joint_names]
        return len(last.points) == 1 and np.allclose(last.points[0].positions, measured, atol=1e-6)

    def wait_for_hold(self) -> None:
        self.probe.wait_for(self.last_is_a_hold, "a hold")


def is_refused(probe: Probe, label: str) -> bool:
    """Whether a transition that does not exist from here is; Jazzy never answers."""
    try:
        return not probe.transition(NODE, label, 3.0)
    except pytest.fail.Exception:
        return True


@pytest.fixture
def deployed(graph: Graph, tmp_path: Path) -> Any:
    return lambda **parameters: Deployed(graph, tmp_path, **parameters)


def test_the_lifecycle_is_walked_and_what_is_no_transition_does_no_harm(deployed) -> None:
    d = deployed()
    probe = d.probe
    assert probe.lifecycle_state(NODE) == "unconfigured"
    assert probe.trigger(f"{NODE}/start").success is False
    d.run()
    assert probe.lifecycle_state(NODE) == "active"
    d.probe.wait_for(lambda: d.switches, "the gripper's switch")
    chunk = d.motions[0]
    assert sorted(chunk.joint_names) == ["elbow", "shoulder"]
    assert len(chunk.points) == 5  # 50 Hz within a period of 10 Hz
    assert chunk.points[-1].time_from_start.nanosec == 100_000_000
    assert is_refused(probe, "configure")
    assert probe.lifecycle_state(NODE) == "active"
    assert probe.transition(NODE, "deactivate")
    d.wait_for_hold()
    count = len(d.motions)
    probe.spin_for(0.5)
    assert len(d.motions) == count, "silence after a hold"
    assert probe.transition(NODE, "cleanup")
    assert probe.transition(NODE, "configure", 60)
    assert probe.transition(NODE, "activate")
    d.wait_for("RUNNING")
    assert probe.transition(NODE, "shutdown")
    assert d.process.stop() == 0


def test_a_contract_that_does_not_fit_is_refused_before_anything_moves(deployed, tmp_path) -> None:
    d = deployed()
    text = d.contract.read_text().replace("size: [16, 16]", "size: [16, 24]").replace("low: -0.2", "low: -0.3")
    d.contract.write_text(text)
    assert not d.probe.transition(NODE, "configure", 60)
    d.probe.wait_for(lambda: "differ in 3 places" in d.status.message, "the reason in ~/status")
    for word in ("16 x 16", "16 x 24", "-0.3"):
        assert word in d.status.message
    assert d.probe.lifecycle_state(NODE) == "unconfigured"
    assert not d.motions


def test_a_checkpoint_that_is_missing_or_swapped_is_refused(deployed, tmp_path) -> None:
    d = deployed(checkpoint=str(tmp_path / "absent"))
    assert not d.probe.transition(NODE, "configure", 60)
    d.probe.wait_for(lambda: "no checkpoint in" in d.status.message, "the reason")
    assert not d.probe.set_parameters(NODE, checkpoint=str(d.checkpoint))
    assert d.probe.transition(NODE, "configure", 60)
    write_policy(tmp_path, d.contract, seed=1)
    assert not d.probe.transition(NODE, "activate")
    d.probe.wait_for(lambda: "was replaced since it was loaded" in d.status.message, "the reason")


def test_how_it_acts_is_taken_up_by_configure_and_told(deployed) -> None:
    d = deployed(proposals=6, behavior_mask=0.01)
    d.run()
    otherwise = "proposals=6 (trained: 0), behavior_mask=0.01 (trained: 0.3)"
    told = f"proposals=6, behavior_mask=0.01, surprise=0.0; not as trained: {otherwise}"
    assert d.values()["acting"] == told
    assert f"acts by {told}" in d.process.output
    assert d.probe.transition(NODE, "deactivate")
    assert d.probe.transition(NODE, "cleanup")
    assert "from -1 to 4096" in d.probe.set_parameters(NODE, proposals=5000)["proposals"]
    assert not d.probe.set_parameters(NODE, proposals=-1, behavior_mask=0)
    assert d.probe.transition(NODE, "configure", 60), d.status.message
    d.probe.wait_for(lambda: "behavior_mask=0.0 (trained: 0.3)" in d.values().get("acting", ""), "the mask taken off")
    assert d.probe.transition(NODE, "cleanup")
    assert not d.probe.set_parameters(NODE, surprise=0.3, behavior_mask=-1)
    assert not d.probe.transition(NODE, "configure", 60)
    d.probe.wait_for(lambda: "chooses among proposals" in d.status.message, "the reason in ~/status")


def test_without_observations_or_a_controller_it_does_not_start(deployed, graph) -> None:
    d = deployed(listen=False, activation_timeout_s=1)
    assert d.probe.transition(NODE, "configure", 60), d.status.message
    d.robot.go_blind()
    d.probe.spin_for(0.6)  # longer than image_timeout_s: until then what was seen last is fresh
    assert not d.probe.transition(NODE, "activate")
    d.probe.wait_for(lambda: "camera/wrist/image_raw" in d.status.message, "the silent stream named")
    d.robot.camera = True
    recorder = Node("qtransformer_recorder", context=d.probe.node.context)  # it hears commands, and obeys none
    recorder.create_subscription(JointTrajectory, ARM, lambda _: None, 10)
    d.probe.spin_for(0.2)
    assert not d.probe.transition(NODE, "activate")
    d.probe.wait_for(lambda: f"nobody listens to /{ARM}" in d.status.message, "the missing controller named")
    recorder.destroy_node()
    d.probe.listen(ARM, JointTrajectory)
    d.probe.listen(GRIPPER, Bool)
    rival = d.probe.publisher(ARM, JointTrajectory)
    d.probe.spin_for(0.5)  # until it is discovered
    assert not d.probe.transition(NODE, "activate")
    d.probe.wait_for(lambda: "1 other publisher" in d.status.message, "the rival named")
    d.probe.node.destroy_publisher(rival)
    assert d.probe.transition(NODE, "activate"), d.status.message


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=str)
def test_the_last_message_before_a_signal_ends_it_is_a_hold(signals, deployed) -> None:
    d = deployed()
    d.run()
    for number in signals:
        d.process.send(number)
    assert d.process.wait() == 0
    d.probe.spin_for(0.3)
    assert d.last_is_a_hold()


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT], ids=lambda r: r.name)
def test_an_estop_latches_and_only_a_start_moves_again(deployed, reliability) -> None:
    """Whatever quality of service its button offers: microcontrollers offer the least."""
    d = deployed()
    d.run()
    button = d.probe.node.create_publisher(Bool, "estop", QoSProfile(depth=1, reliability=reliability))
    d.probe.wait_for(lambda: button.get_subscription_count() > 0, "the node's ear")

    def says(pressed: bool) -> bool:
        """Again and again, as buttons do: a best-effort message may be lost."""
        button.publish(Bool(data=pressed))
        return True

    d.probe.wait_for(lambda: says(True) and d.is_in("ESTOP"), "the stop")
    d.wait_for_hold()
    count = len(d.motions)
    assert not d.probe.trigger(f"{NODE}/start").success
    d.probe.spin_for(0.5)
    assert len(d.motions) == count
    assert "still says pressed" in d.probe.set_bool(f"{NODE}/estop", False).message
    d.probe.wait_for(lambda: says(False) and d.probe.set_bool(f"{NODE}/estop", False).success, "the release")
    d.wait_for("PAUSED")
    d.probe.spin_for(0.3)
    assert len(d.motions) == count
    assert d.probe.trigger(f"{NODE}/start").success
    d.probe.wait_for(lambda: len(d.motions) > count, "motion again")
    assert "incompatible QoS" not in d.process.output, "of an e-stop that is heard nobody is told that it is not"


def test_an_estop_that_was_pressed_before_there_was_a_policy_is_heard_and_outlives_its_cleanup(graph, tmp_path) -> None:
    button = graph.probe.node.create_publisher(Bool, "estop", LATCHED)
    button.publish(Bool(data=True))
    d = Deployed(graph, tmp_path)
    d.probe.wait_for(lambda: button.get_subscription_count() > 1, "the node's ear")
    d.probe.wait_for(lambda: not d.probe.set_bool(f"{NODE}/estop", False).success, "the button to be heard")
    for _ in range(2):
        assert d.probe.transition(NODE, "configure", 60), d.status.message
        assert "still says pressed" in d.probe.set_bool(f"{NODE}/estop", False).message
        assert d.probe.transition(NODE, "activate"), d.status.message
        d.wait_for("ESTOP")
        assert d.probe.transition(NODE, "deactivate")
        assert d.probe.transition(NODE, "cleanup")
        assert "still says pressed" in d.probe.set_bool(f"{NODE}/estop", False).message
    assert not d.motions
    button.publish(Bool(data=False))
    d.probe.wait_for(lambda: d.probe.set_bool(f"{NODE}/estop", False).success, "the release")


def test_a_blind_camera_ends_in_a_hold_and_silence(deployed) -> None:
    d = deployed()
    d.run()
    d.robot.go_blind()
    blind = time.monotonic()
    d.wait_for("HOLD")
    assert time.monotonic() - blind < QUICK["image_timeout_s"] + 0.1 + 0.3  # a period, and a busy machine
    assert "image_stale: /camera/wrist/image_raw" in d.status.message
    d.wait_for_hold()
    count = len(d.motions)
    d.probe.spin_for(0.5)
    assert len(d.motions) == count


def test_joints_that_are_no_numbers_end_in_a_hold(deployed) -> None:
    d = deployed()
    d.run()
    measured = dict(d.robot.joints)
    d.robot.break_joint()
    d.wait_for("HOLD")
    d.robot.joints.update(measured)
    assert "elbow = nan" in d.status.message
    d.wait_for_hold()
    assert all(np.isfinite(point.positions).all() for motion in d.motions for point in motion.points)


def test_a_dry_run_says_what_it_would_do_and_does_nothing(deployed) -> None:
    d = deployed(dry_run=True)
    proposed = d.probe.listen(f"{NODE}/proposed_trajectory", JointTrajectory)
    assert d.probe.transition(NODE, "configure", 60), d.status.message
    assert d.probe.transition(NODE, "activate"), d.status.message
    d.probe.wait_for(lambda: len(proposed) > 5, "proposals")
    assert d.probe.node.count_publishers(ARM) == d.probe.node.count_publishers(GRIPPER) == 0
    assert not d.motions
    assert not d.switches


def test_while_it_runs_limits_are_only_tightened(deployed) -> None:
    d = deployed(max_step_rad=1)  # an int for a double
    d.run()
    assert "not loosened" in d.probe.set_parameters(NODE, max_step_rad=1.5)["max_step_rad"]
    assert d.probe.set_parameters(NODE, max_step_rad=0.5) == {}
    assert d.probe.get_parameter(NODE, "max_step_rad") == 0.5
    assert d.probe.set_parameters(NODE, dry_run=True)["dry_run"]
    assert d.probe.trigger(f"{NODE}/stop").success
    d.wait_for("PAUSED")
    assert d.probe.set_parameters(NODE, max_step_rad=0.8) == {}


def test_what_an_action_was_computed_from_and_by_which_values_is_published(deployed) -> None:
    d = deployed()
    consumed = d.probe.listen(f"{NODE}/consumed", DiagnosticArray)
    actions = d.probe.listen(f"{NODE}/action", JointState)
    q_values = d.probe.listen(f"{NODE}/q_values", Float32MultiArray)
    distribution = d.probe.listen(f"{NODE}/value_distribution", Float32MultiArray)
    d.run()
    d.probe.wait_for(lambda: len(consumed) > 3 and q_values and distribution, "introspection")
    for message in consumed:
        said = {pair.key: pair.value for pair in message.status[0].values}
        assert len(said.pop("observation_sha256")) == 64
        stamps = {topic: int(stamp) for topic, stamp in said.items()}
        assert stamps.keys() == {"/camera/wrist/image_raw", "/joint_states"}
        for topic, stamp in stamps.items():
            assert stamp in d.robot.sent[topic.lstrip("/")]
    assert list(actions[0].name) == ["shoulder.position", "elbow.position", "gripper"]
    assert [dim.size for dim in q_values[0].layout.dim] == [3, 5]
    assert [dim.size for dim in distribution[0].layout.dim] == [3, 21]
    np.testing.assert_allclose(np.reshape(distribution[0].data, (3, 21)).sum(-1), 1, atol=1e-5)


def test_candidates_of_any_policy_are_scored_as_the_policy_itself_does(deployed) -> None:
    d = deployed(start_paused=True)
    d.robot.pixels = np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint8)
    assert d.probe.transition(NODE, "configure", 60), d.status.message
    scores = d.probe.listen(f"{NODE}/candidate_scores", JointTrajectory)
    ask = d.probe.publisher(f"{NODE}/score_candidates", JointTrajectory)
    assert d.probe.transition(NODE, "activate"), d.status.message
    d.wait_for("PAUSED")
    names = ["gripper", "elbow.position", "shoulder.position"]  # in another order than the policy's
    rows = np.random.default_rng(0).uniform([0, -0.2, -0.2], [1, 0.2, 0.2], (4, 3))
    request = JointTrajectory(joint_names=names, points=[JointTrajectoryPoint(positions=row.tolist()) for row in rows])
    request.header.frame_id = "request 7"
    d.probe.wait_for(lambda: d.probe.node.count_publishers(f"{NODE}/candidate_scores"), "the answer's topic")
    ask.publish(request)
    (answer,) = d.probe.wait_for(lambda: scores, "scores")
    assert answer.header.frame_id == "request 7"
    assert list(answer.joint_names) == ["shoulder.position", "elbow.position", "gripper"]
    np.testing.assert_allclose([point.positions for point in answer.points], rows[:, ::-1])
    proprio = np.array([d.robot.joints["shoulder"], d.robot.joints["elbow"]], np.float32)
    observation = {"images": {"wrist": d.robot.pixels}, "proprio": proprio, "instruction": "wave"}
    expected = Policy.from_checkpoint(d.checkpoint, "cpu").score(observation, rows[:, ::-1])
    np.testing.assert_allclose([point.effort for point in answer.points], expected, atol=1e-5)


def test_who_only_looks_does_not_count_as_the_controller() -> None:
    lookers = ("rosbag2_recorder", "qtransformer_recorder", "_ros2cli_4711", "rviz2", "rqt_gui_py_node_1", "foxglove_bridge")
    assert not any(map(obeys, lookers))
    assert all(map(obeys, ("joint_trajectory_controller", "servo_node", "controller_manager")))

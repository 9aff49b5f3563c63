"""An arm in PyBullet that a policy moves in real time, and everything between them that can fail."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pybullet_data
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qtransformer.models.q_transformer import QTransformer
from qtransformer_datasets.rosbag.ros_messages import stamp_ns
from tests.ros_bridge.tiny_policy import write_policy
from tests.ros_nodes.harness import LATCHED, ROOT, Graph

NODE, SIM, JOINTS = "/qtransformer_policy", "/qtransformer_sim", "/joint_relay"
SEEN = ("camera/wrist/image_raw", "joint_states", "tool_state")
HZ, COMMAND_HZ = 10.0, 20.0
IMAGE_TIMEOUT_S, JOINT_TIMEOUT_S, ESTOP_TIMEOUT_S, MISSES, REJECTIONS, IDENTICAL = 1.0, 1.5, 2.0, 5, 10, 15
SETTINGS = {
    "image_timeout_s": IMAGE_TIMEOUT_S,
    "joint_timeout_s": JOINT_TIMEOUT_S,
    "max_sync_skew_s": 0.7,
    "max_consecutive_misses": MISSES,
    "max_consecutive_rejections": REJECTIONS,
    "command_rate_hz": COMMAND_HZ,
    "inference_timeout_s": 0.25,
}
STILL_RAD = 2e-3
"""The wrist, turning at 0.05 rad/s or more, leaves this behind in 40 ms."""
OUTPUTS = {
    "as_contract": ("servo_node/delta_twist_cmds", TwistStamped),
    "joint_trajectory": ("joint_trajectory_controller/joint_trajectory", JointTrajectory),
}
ARM = [f"joint_{i + 1}" for i in range(7)]


def write_turning_contract(folder: Path) -> Path:
    """The simulated Kuka's, but whatever a network decides turns the wrist, slowly and for ever."""
    text = (ROOT / "datasets" / "contracts" / "simulated_kuka.yaml").read_text()
    for old, new in (
        (r"control_hz: 4", f"control_hz: {HZ:g}"),
        (r"low: \[-0.03.*", "low: [-0.0001, -0.0001, -0.0001, 0.005]"),
        (r"high: \[0.03.*", "high: [0.0001, 0.0001, 0.0001, 0.008]"),
        (r".*policy/terminate.*\n", ""),
    ):
        text, count = re.subn(old, new, text)
        assert count == 1, old
    (folder / "contract.yaml").write_text(text)
    return folder / "contract.yaml"


def make_fragile(network: QTransformer) -> None:
    """A weight beyond all measure, of an input that is 0: a closed gripper is more than the network can compute with."""
    with torch.no_grad():
        layer = network.proprio_tokenizer[0]
        assert isinstance(layer, torch.nn.Linear)
        layer.weight[0, 6] = 3e38


class Cell:
    """The arm, its sensors on their way through two relays, the policy, the button; the test is the gripper, and who presses.

    What the policy's output is, decides what the arm takes: velocities of the tool, or, by inverse kinematics, joint trajectories.
    """

    def __init__(self, graph: Graph, folder: Path, output: str = "as_contract", **parameters: Any) -> None:
        self.graph, self.probe, self.folder, self.output = graph, graph.probe, folder, output
        self.contract = write_turning_contract(folder)
        self.checkpoint = write_policy(folder, self.contract, spoil=make_fragile)
        own = {"checkpoint": str(self.checkpoint), "contract": str(self.contract), "output": output, "device": "cpu", **SETTINGS}
        own |= {"start_paused": False, "use_sim_time": True, "allow_slow": True, "activation_timeout_s": 20}
        if output == "joint_trajectory":
            kuka = Path(pybullet_data.getDataPath()) / "kuka_iiwa" / "model.urdf"
            (folder / "arm.urdf").write_text(kuka.read_text().replace("lbr_iiwa_joint_", "joint_"))
            own |= {"urdf": str(folder / "arm.urdf"), "base_frame": "lbr_iiwa_link_0", "tool_frame": "lbr_iiwa_link_7"}
        self._parameters = {**own, **parameters}
        self.deploy()
        self.start_arm()
        self.start_camera()
        self.start_joints()
        self.button = graph.start("tests.ros_nodes.button")
        self.statuses = self.probe.listen(f"{NODE}/status", DiagnosticStatus, LATCHED)
        topic, kind = OUTPUTS[output]
        self.commands = self.probe.listen(topic, kind)
        self.estop = self.probe.node.create_publisher(Bool, "estop", 10)
        self.reach_out()
        self.positions: list[np.ndarray] = []
        """(7,) [rad] of every state of the arm."""
        self.times: list[float] = []
        """Simulated time of each [s]: goes on whatever the arm's clock says."""
        self._last_ns = 0
        self.probe.on("arm/joint_states", JointState, self._see)
        if output == "as_contract":  # else they would be a rival's
            self.nudges = self.probe.node.create_publisher(JointTrajectory, OUTPUTS["joint_trajectory"][0], 10)
        self.intact = False
        """Whether the next test may go on with it."""

    # Its processes

    def deploy(self) -> None:
        self.policy = self.graph.start("qtransformer_ros.nodes.policy_node", **self._parameters)

    def start_arm(self) -> None:
        hidden = (*SEEN, "estop", "gripper_controller/commands")
        away = {topic: f"arm/{topic}" for topic in hidden}
        self.sim = self.graph.start(
            "qtransformer_ros.nodes.sim_node", remap=away, max_steps=10**6, seed=3, control_hz=HZ, joint_state_hz=50
        )

    def start_camera(self) -> None:
        self.camera = self.graph.start("tests.ros_nodes.relay", name="camera_relay", topics=list(SEEN[:1]))

    def start_joints(self) -> None:
        self.joints = self.graph.start("tests.ros_nodes.relay", name="joint_relay", topics=list(SEEN[1:]))

    def _see(self, message: JointState) -> None:
        now = stamp_ns(message.header.stamp)
        passed = min(max(0, now - self._last_ns), 10**9) if self._last_ns else 0
        self._last_ns = now
        measured = dict(zip(message.name, message.position, strict=True))
        self.times.append((self.times[-1] if self.times else 0.0) + passed / 1e9)
        self.positions.append(np.array([measured[joint] for joint in ARM]))

    # Its hand, which is one of the policy's two listeners

    def reach_out(self) -> None:
        self.hand = self.probe.node.create_subscription(Float64MultiArray, "gripper_controller/commands", lambda _: None, 10)

    def withdraw(self) -> None:
        self.probe.node.destroy_subscription(self.hand)

    # Another policy

    def intrude(self) -> None:
        topic, kind = OUTPUTS[self.output]
        self.rival = self.probe.node.create_publisher(kind, topic, 10)

    def withdraw_rival(self) -> None:
        self.probe.node.destroy_publisher(self.rival)

    # Its life

    def run(self) -> "Cell":
        """From nothing to a moving arm."""
        assert self.probe.transition(NODE, "configure", 60), self.status
        self.begin()
        return self

    def begin(self) -> None:
        """From a configured policy to a moving arm."""
        self.probe.wait_for(lambda: self.positions, "the arm", 60)
        self.wake()
        assert self.probe.transition(NODE, "activate", 60), self.status
        self.wait_for("RUNNING")
        self.wait_until_moving()
        self.intact = True

    def load(self, checkpoint: Path) -> None:
        """From a policy that acts to another one, configured."""
        assert self.probe.transition(NODE, "deactivate"), self.status
        assert self.probe.transition(NODE, "cleanup"), self.status
        assert self.probe.set_parameters(NODE, checkpoint=str(checkpoint)) == {}
        assert self.probe.transition(NODE, "configure", 60), self.status

    def wake(self) -> None:
        """Turn the wrist a little, past the policy: a camera that sees the same for long counts as frozen."""
        if self.output != "as_contract":
            return
        count = len(self.positions)
        self.probe.wait_for(lambda: len(self.positions) > count, "the arm", 60)
        goal = np.nan_to_num(self.positions[-1])
        goal[6] += 1.0 if goal[6] < 0 else -1.0
        point = JointTrajectoryPoint(positions=goal.tolist())
        point.time_from_start.sec = 20
        trajectory = JointTrajectory(joint_names=ARM, points=[point])
        timer = self.probe.node.create_timer(0.5, lambda: self.nudges.publish(trajectory))
        self.wait_until_moving()
        self.probe.node.destroy_timer(timer)

    def start_again(self) -> None:
        """After a fault that has passed: nothing moves by itself, and a person starts it."""
        self.wake()
        self.wait_for("PAUSED")
        self.probe.wait_for(lambda: self.probe.trigger(f"{NODE}/start").success, "a start")
        self.wait_for("RUNNING")
        count = len(self.commands)
        self.probe.wait_for(lambda: len(self.commands) > count + 4, "commands")
        self.wait_until_moving()
        self.intact = True

    # What it says and does

    @property
    def status(self) -> str:
        """State and reason."""
        return self.statuses[-1].message if self.statuses else ""

    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.statuses[-1].values}

    def wait_for(self, state: str) -> None:
        self.probe.wait_for(lambda: self.statuses and self.values()["state"] == state, f"{state}, last {self.status!r}")

    @property
    def now(self) -> float:
        """Simulated time of the arm's newest state [s]."""
        return self.times[-1]

    def turned(self, states: int = 15) -> float:
        """How far any joint went in the last states [rad]."""
        return float(np.nanmax(np.ptp(self.positions[-states:], axis=0))) if len(self.positions) >= states else 0.0

    def wait_until_moving(self) -> None:
        count = len(self.positions)
        self.probe.wait_for(lambda: len(self.positions) > count + 15 and self.turned() > 2 * STILL_RAD, "motion")

    def stands_still_after(self, then: float) -> float:
        """Wait until the arm stands; returns how long it has moved from then on [s of simulated time]."""
        count = len(self.positions)
        self.probe.wait_for(lambda: len(self.positions) > count + 25 and self.turned(25) < STILL_RAD, "the arm to stand still")
        places = np.array(self.positions)
        away = np.nan_to_num(np.abs(places - places[-1])).max(axis=1) > STILL_RAD
        last = int(np.flatnonzero(away)[-1]) if away.any() else 0
        return self.times[last] - then

    def is_silent(self, seconds: float = 0.5) -> bool:
        """Whether no command comes for a while."""
        count = len(self.commands)
        self.probe.spin_for(seconds)
        return len(self.commands) == count

    def last_is_a_hold(self) -> bool:
        """The last command: no velocity, or the measured pose."""
        last = self.commands[-1]
        if isinstance(last, JointTrajectory):
            here = dict(zip(ARM, self.positions[-1], strict=True))
            wanted = [here[joint] for joint in last.joint_names]
            return len(last.points) == 1 and bool(np.nanmax(np.abs(wanted - np.array(last.points[0].positions))) < 0.02)
        v, w = last.twist.linear, last.twist.angular
        return [v.x, v.y, v.z, w.x, w.y, w.z] == [0.0] * 6

    def wait_for_end(self) -> int:
        """Listen until the policy's process has ended; returns its exit code."""
        self.policy.must_live = False
        self.probe.wait_for(lambda: self.policy.code is not None, "the policy's end")
        return self.policy.wait()

"""Inverse kinematics on two real arms: pure code, but of Pinocchio, which only this environment has."""

from pathlib import Path

import numpy as np
import pybullet_data
import pytest

from qtransformer.errors import ConfigError
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, VectorTopic
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.commands import CommandMaker, Output
from qtransformer_ros.arm.ik import IkSettings, InverseKinematics, UnreachableError
from qtransformer_ros.arm.motion import JointMotion
from qtransformer_ros.arm.rotation import from_vector, multiply, rotate
from qtransformer_ros.arm.safety import Measured

DATA = Path(pybullet_data.getDataPath())
KUKA, PANDA = DATA / "kuka_iiwa" / "model.urdf", DATA / "franka_panda" / "panda.urdf"
KUKA_JOINTS = tuple(f"lbr_iiwa_joint_{i}" for i in range(1, 8))
PANDA_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
KUKA_HOME = np.array([0.0, 0.61, 0.0, -1.59, 0.0, 0.94, 0.0])
PANDA_HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.8])


def kuka(**settings) -> InverseKinematics:
    return InverseKinematics(KUKA, KUKA_JOINTS, "lbr_iiwa_link_7", settings=IkSettings(**settings))


def panda(**settings) -> InverseKinematics:
    return InverseKinematics(PANDA, PANDA_JOINTS, "panda_grasptarget", "panda_link0", IkSettings(**settings))


def distance(ik: InverseKinematics, joints: np.ndarray, position: np.ndarray, orientation: np.ndarray) -> tuple[float, float]:
    """[m], [rad] between where joints put the tool and a pose."""
    found, turned = ik.forward(joints)
    return float(np.linalg.norm(found - position)), float(2 * np.arccos(min(1.0, abs(turned @ orientation))))


@pytest.mark.parametrize(("make", "home"), [(kuka, KUKA_HOME), (panda, PANDA_HOME)])
def test_joints_found_for_reachable_poses_put_the_tool_there(make, home) -> None:
    ik, rng = make(max_jump_rad=2.0), np.random.default_rng(0)
    for _ in range(200):
        there = np.clip(home + rng.uniform(-0.8, 0.8, 7), ik.low + 0.05, ik.high - 0.05)
        start = np.clip(there + rng.uniform(-0.25, 0.25, 7), ik.low, ik.high)
        pose = ik.forward(there)
        joints = ik.solve(*pose, measured=start)
        metres, radians = distance(ik, joints, *pose)
        assert metres < 1e-4
        assert radians < 1e-3
        assert (joints >= ik.low).all()
        assert (joints <= ik.high).all()


@pytest.mark.parametrize(("make", "home"), [(kuka, KUKA_HOME), (panda, PANDA_HOME)])
def test_along_a_path_joints_move_little_by_little(make, home) -> None:
    ik = make()
    position, orientation = ik.forward(home)
    joints, largest = home, 0.0
    for angle in np.linspace(0, 2 * np.pi, 100):
        target = position + 0.08 * np.array([np.cos(angle) - 1, np.sin(angle), 0.3 * np.sin(2 * angle)])
        following = ik.solve(target, orientation, joints)
        largest = max(largest, float(np.abs(following - joints).max()))
        joints = following
    assert largest < 0.05  # steps of 5 mm
    assert distance(ik, joints, position, orientation)[0] < 1e-4


def test_where_the_tool_already_is_nothing_moves() -> None:
    ik = kuka()
    np.testing.assert_allclose(ik.solve(*ik.forward(KUKA_HOME), measured=KUKA_HOME), KUKA_HOME, atol=1e-9)


def test_what_cannot_be_reached_is_refused_with_the_reason() -> None:
    ik = kuka()
    position, orientation = ik.forward(KUKA_HOME)
    with pytest.raises(UnreachableError, match="out of reach"):
        ik.solve(position + np.array([2.0, 0.0, 0.0]), orientation, KUKA_HOME)
    with pytest.raises(UnreachableError, match="would turn by"):
        kuka(max_jump_rad=0.01).solve(position + np.array([0.05, 0.05, 0.0]), orientation, KUKA_HOME)
    with pytest.raises(UnreachableError, match="not finite"):
        ik.solve(position * np.nan, orientation, KUKA_HOME)
    with pytest.raises(UnreachableError, match="unit quaternion"):
        ik.solve(position, np.zeros(4), KUKA_HOME)


def test_a_velocity_of_the_tool_becomes_a_joint_trajectory_that_moves_it_so() -> None:
    states = VectorTopic(topic="joint_states", type="JointState", joints=KUKA_JOINTS, units=("rad",))
    twist = ActionTopic(topic="twist", type="TwistStamped", values=("vx", "vz", "wz"))
    contract = TopicContract(control_hz=5, tolerance_s=0.1, proprio=(states,), action=(twist,))
    maker, ik = CommandMaker(contract, Output.joint_trajectory, kuka), kuka()
    assert (maker.joints, maker.type) == (KUKA_JOINTS, "JointTrajectory")
    motion = maker(np.array([0.05, -0.1, 0.5]), Measured(joints=dict(zip(KUKA_JOINTS, KUKA_HOME, strict=True)))).motion
    assert isinstance(motion, JointMotion)
    position, orientation = ik.forward(KUKA_HOME)
    wanted = position + rotate(orientation, np.array([0.01, 0.0, -0.02]))
    metres, radians = distance(ik, motion.positions[-1], wanted, multiply(orientation, from_vector(np.array([0.0, 0.0, 0.1]))))
    assert metres < 1e-4
    assert radians < 1e-3
    assert motion.times_s[-1] == 0.2


def test_joint_order_is_the_callers() -> None:
    backwards = InverseKinematics(KUKA, KUKA_JOINTS[::-1], "lbr_iiwa_link_7")
    for a, b in zip(backwards.forward(KUKA_HOME[::-1]), kuka().forward(KUKA_HOME), strict=True):
        np.testing.assert_allclose(a, b)


def test_poses_are_in_the_base_frame() -> None:
    plain, shifted = kuka(), InverseKinematics(KUKA, KUKA_JOINTS, "lbr_iiwa_link_7", "lbr_iiwa_link_1")
    turned = np.array([0.7, *KUKA_HOME[1:]])  # link 1 turns with joint 1: in its frame the tool stays
    np.testing.assert_allclose(shifted.forward(turned)[0], shifted.forward(KUKA_HOME)[0], atol=1e-12)
    assert np.abs(plain.forward(turned)[0] - plain.forward(KUKA_HOME)[0]).max() > 0.1


def test_continuous_joints_turn_without_end(tmp_path) -> None:
    text = KUKA.read_text().replace(
        '<joint name="lbr_iiwa_joint_7" type="revolute">', '<joint name="lbr_iiwa_joint_7" type="continuous">'
    )
    (tmp_path / "arm.urdf").write_text(text)
    ik = InverseKinematics(tmp_path / "arm.urdf", KUKA_JOINTS, "lbr_iiwa_link_7")
    assert ik.high[6] == np.inf
    wound = np.array([*KUKA_HOME[:6], 9.0])
    pose = ik.forward(np.array([*KUKA_HOME[:6], 9.2]))
    joints = ik.solve(*pose, measured=wound)
    assert joints[6] == pytest.approx(9.2, abs=0.1)
    assert distance(ik, joints, *pose)[0] < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((KUKA, ("lbr_iiwa_joint_1", "elbow"), "lbr_iiwa_link_7"), "no joints elbow; it moves lbr_iiwa_joint_1"),
        ((KUKA, (), "lbr_iiwa_link_7"), "none were asked for"),
        ((KUKA, KUKA_JOINTS, "tool0"), "no link 'tool0'; it has .*lbr_iiwa_link_7"),
        ((DATA / "absent.urdf", KUKA_JOINTS, "tool0"), r"absent\.urdf cannot be read"),
        ((Path(__file__), KUKA_JOINTS, "tool0"), "cannot be read as a robot's model"),
    ],
)
def test_models_that_do_not_fit_are_refused(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        InverseKinematics(*arguments)

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, NextState, NextStateMode, VectorTopic
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.commands import CommandMaker, Output
from qtransformer_ros.arm.motion import JointMotion, PoseMotion, TwistMotion
from qtransformer_ros.arm.rotation import from_vector
from qtransformer_ros.arm.safety import Measured

KUKA = Path(__file__).parents[3] / "datasets" / "contracts" / "simulated_kuka.yaml"
ARM = ("shoulder", "elbow")
HERE = Measured(
    joints={"elbow": 0.2, "shoulder": 0.1},
    position=np.array([0.5, 0.0, 0.3]),
    orientation=from_vector(np.array([0.0, 0.0, np.pi / 2])),
)
TRAJECTORY = ActionTopic(topic="arm/joint_trajectory", type="JointTrajectory", joints=ARM, units=("rad",))
GRIPPER = ActionTopic(topic="gripper", type="Float64MultiArray", values=("width",), units=("m",))
TWIST = ActionTopic(topic="twist", type="TwistStamped", values=("vz", "wz"))
POSE = ActionTopic(topic="pose", type="PoseStamped", values=("x", "y", "z"))
WHOLE_POSE = ActionTopic(topic="pose", type="PoseStamped")
STATES = VectorTopic(topic="joint_states", type="JointState", joints=ARM, units=("rad",))


class Slide:
    """Two joints that are the tool's x and y."""

    joints = ARM

    def forward(self, positions):
        return np.array([*positions, 0.3]), np.array([0.0, 0.0, 0.0, 1.0])

    def solve(self, position, orientation, measured):
        if position[0] > 1:
            raise QTransformerError("out of reach")
        return position[:2]


def contract(*action) -> TopicContract:
    return TopicContract(control_hz=5, tolerance_s=0.1, action=action, proprio=(STATES,))


def test_joint_actions_become_a_chunk_from_the_measured_pose_that_ends_after_a_period() -> None:
    maker = CommandMaker(contract(TRAJECTORY, GRIPPER), command_rate_hz=20)
    assert (maker.topic, maker.type, maker.joints, maker.streams) == ("arm/joint_trajectory", "JointTrajectory", ARM, False)
    command = maker(np.array([0.5, 0.0, 0.04]), HERE)
    assert isinstance(command.motion, JointMotion)
    assert command.motion.joints == ARM
    np.testing.assert_allclose(command.motion.times_s, [0.05, 0.1, 0.15, 0.2])
    np.testing.assert_allclose(command.motion.positions, [[0.2, 0.15], [0.3, 0.1], [0.4, 0.05], [0.5, 0.0]], atol=1e-12)
    assert {k: v.tolist() for k, v in command.switches.items()} == {"gripper": [0.04]}


def test_a_chunk_continues_the_motion_before_it_until_a_hold() -> None:
    maker = CommandMaker(contract(TRAJECTORY), command_rate_hz=10)
    maker.last = maker(np.array([0.5, 0.0]), HERE).motion
    np.testing.assert_allclose(maker(np.array([0.7, 0.0]), HERE).motion.positions, [[0.6, 0.0], [0.7, 0.0]], atol=1e-12)
    maker.last = None
    np.testing.assert_allclose(maker(np.array([0.7, 0.0]), HERE).motion.positions, [[0.4, 0.1], [0.7, 0.0]], atol=1e-12)


@pytest.mark.parametrize(("mode", "goal"), [(NextStateMode.difference, [0.2, -0.1]), (NextStateMode.absolute, [-0.3, 0.1])])
def test_next_states_of_joints_are_joint_motions(mode, goal) -> None:
    entry = NextState(next_state=mode, of=("elbow.position", "shoulder.position"))
    maker = CommandMaker(contract(entry), command_rate_hz=1)
    assert maker.topic == "joint_trajectory_controller/joint_trajectory"
    assert maker.joints == ("elbow", "shoulder")
    motion = maker(np.array([0.0, -0.2]) if mode is NextStateMode.difference else np.array([-0.3, 0.1]), HERE).motion
    np.testing.assert_allclose(motion.positions, [goal], atol=1e-12)


def test_positions_may_be_streamed() -> None:
    maker = CommandMaker(contract(TRAJECTORY), Output.commands)
    assert (maker.topic, maker.type, maker.streams) == ("forward_position_controller/commands", "Float64MultiArray", True)
    array = ActionTopic(topic="positions", type="Float64MultiArray", values=ARM, units=("rad",))
    maker = CommandMaker(contract(array), Output.as_contract)
    assert (maker.topic, maker.type, maker.joints) == ("positions", "Float64MultiArray", ARM)


def test_the_simulators_contract_moves_the_tool_and_sets_two_switches() -> None:
    maker = CommandMaker(TopicContract.load(KUKA), Output.delta_twist_cmds)
    assert (maker.topic, maker.type, maker.joints, maker.streams) == ("servo_node/delta_twist_cmds", "TwistStamped", (), True)
    command = maker(np.array([0.01, 0.02, -0.03, 0.1, 1.0, 0.0]), Measured(joints={}))
    assert isinstance(command.motion, TwistMotion)
    np.testing.assert_allclose(command.motion.linear, [0.04, 0.08, -0.12])  # per step, at 4 Hz
    np.testing.assert_allclose(command.motion.angular, [0, 0, 0.4])
    assert {k: v.tolist() for k, v in command.switches.items()} == {"gripper_controller/commands": [1.0], "policy/terminate": [0.0]}


def test_velocities_of_the_tool_become_poses_in_the_base_frame() -> None:
    sideways = ActionTopic(topic="twist", type="TwistStamped", values=("vx", "wz"))
    maker = CommandMaker(contract(sideways), Output.target_pose)
    assert maker.needs_pose
    motion = maker(np.array([0.05, 0.5]), HERE).motion
    assert isinstance(motion, PoseMotion)
    np.testing.assert_allclose(motion.position, [0.5, 0.01, 0.3], atol=1e-12)  # the tool's x is the base's y here
    np.testing.assert_allclose(motion.orientation, from_vector(np.array([0, 0, np.pi / 2 + 0.1])), atol=1e-12)
    maker.last = motion
    assert maker(np.array([0.05, 0.5]), HERE).motion.position[1] == pytest.approx(0.02, abs=1e-4)
    maker.last = replace(motion, position=np.array([0.5, 1.0, 0.3]))  # a blocked arm
    assert maker(np.array([0.05, 0.0]), HERE).motion.position[1] == pytest.approx(0.025, abs=1e-3)


def test_what_a_pose_does_not_say_stays_as_measured() -> None:
    maker = CommandMaker(contract(POSE), Output.target_pose)
    assert maker.needs_pose
    motion = maker(np.array([0.6, 0.1, 0.2]), HERE).motion
    np.testing.assert_allclose(motion.position, [0.6, 0.1, 0.2])
    np.testing.assert_allclose(motion.orientation, HERE.orientation)
    whole = CommandMaker(contract(WHOLE_POSE), Output.target_pose)
    motion = whole(np.array([0.6, 0.1, 0.2, 0, 0, 0, 0.5]), Measured(joints={})).motion
    np.testing.assert_allclose(motion.orientation, [0, 0, 0, 1])
    with pytest.raises(QTransformerError, match="no orientation"):
        whole(np.array([0.6, 0.1, 0.2, 0, 0, 0, 0.0]), HERE)


@pytest.mark.parametrize("output", [Output.joint_trajectory, Output.commands])
def test_with_a_model_of_the_arm_cartesian_actions_become_joint_positions(output) -> None:
    maker = CommandMaker(contract(POSE), output, Slide, command_rate_hz=5)
    assert maker.joints == ARM
    np.testing.assert_allclose(maker(np.array([0.6, 0.1, 0.2]), HERE).motion.positions, [[0.6, 0.1]])
    with pytest.raises(QTransformerError, match="out of reach"):
        maker(np.array([1.6, 0.1, 0.2]), HERE)
    sideways = CommandMaker(contract(replace(TWIST, values=("vx", "wz"))), output, Slide, command_rate_hz=5)
    maker.last = sideways.last = None
    np.testing.assert_allclose(sideways(np.array([0.05, 0.0]), HERE).motion.positions, [[0.11, 0.2]])
    sideways.last = sideways(np.array([0.05, 0.0]), HERE).motion
    np.testing.assert_allclose(sideways(np.array([0.05, 0.0]), HERE).motion.positions, [[0.12, 0.2]])


@pytest.mark.parametrize(
    ("action", "output", "message"),
    [
        ((TWIST,), Output.joint_trajectory, r"Cartesian \(TwistStamped on twist\).*output:=delta_twist_cmds.*urdf:="),
        ((POSE,), Output.commands, "Two ways"),
        ((TRAJECTORY,), Output.target_pose, "use output:=joint_trajectory"),
        ((TRAJECTORY,), Output.delta_twist_cmds, "actions are joint positions"),
        ((POSE,), Output.delta_twist_cmds, "use output:=target_pose"),
        ((replace(GRIPPER, units=("1",)),), Output.as_contract, "found 0: none"),
        ((TRAJECTORY, TWIST), Output.joint_trajectory, "found 2: JointTrajectory on arm/joint_trajectory, TwistStamped on twist"),
        ((replace(TRAJECTORY, units=("deg",)),), Output.joint_trajectory, "other units"),
        ((ActionTopic(topic="w", type="WrenchStamped"),), Output.as_contract, "not forces"),
        ((replace(WHOLE_POSE, values=("x", "qx")),), Output.target_pose, "part of a quaternion"),
        ((NextState(next_state=NextStateMode.difference, of=("elbow.position",)),), Output.as_contract, "which no topic takes"),
    ],
)
def test_what_cannot_be_put_to_the_arm_is_refused_with_the_ways_out(action, output, message) -> None:
    with pytest.raises(ConfigError, match=message):
        CommandMaker(contract(*action), output)


def test_next_states_that_are_no_joints_are_refused() -> None:
    tool = VectorTopic(topic="tool", type="JointState", joints=("closed",), units=("1",))
    own = TopicContract(
        control_hz=5,
        tolerance_s=0.1,
        proprio=(tool,),
        action=(NextState(next_state=NextStateMode.absolute, of=("closed.position",)),),
    )
    with pytest.raises(ConfigError, match=r"closed.position are no joint positions"):
        CommandMaker(own)


def test_actions_and_states_that_are_no_numbers_move_nothing() -> None:
    maker = CommandMaker(contract(TRAJECTORY))
    with pytest.raises(QTransformerError, match="NaN"):
        maker(np.array([0.5, np.nan]), HERE)
    relative = CommandMaker(contract(NextState(next_state=NextStateMode.difference, of=("elbow.position",))))
    with pytest.raises(QTransformerError, match="measured positions of elbow"):
        relative(np.array([0.5]), Measured(joints={"shoulder": 0.0}))


def test_to_hold_is_to_command_the_measured_joints_in_the_motion_s_order() -> None:
    motion = CommandMaker(contract(TRAJECTORY)).hold(HERE, 0.3)
    assert isinstance(motion, JointMotion)
    assert (motion.joints, motion.positions.tolist(), motion.times_s) == (ARM, [[0.1, 0.2]], (0.3,))


def test_to_hold_a_pose_is_to_command_the_measured_one_and_a_velocity_is_zero() -> None:
    pose = CommandMaker(contract(POSE), Output.as_contract).hold(HERE, 0.3)
    assert isinstance(pose, PoseMotion)
    assert (pose.position is HERE.position, pose.orientation is HERE.orientation) == (True, True)
    twist = CommandMaker(contract(TWIST), Output.as_contract).hold(Measured(), 0.3)
    assert isinstance(twist, TwistMotion)
    assert [*twist.linear, *twist.angular] == [0.0] * 6


def test_nothing_holds_an_arm_that_was_never_measured() -> None:
    assert CommandMaker(contract(TRAJECTORY)).hold(replace(HERE, joints={"elbow": 0.2}), 0.3) is None
    assert CommandMaker(contract(POSE), Output.as_contract).hold(replace(HERE, orientation=None), 0.3) is None

"""From an action, in robot units, to what is sent: which kind of motion a contract means, and how it is put to the arm.

Contracts say three kinds of motion: joint positions (JointTrajectory, JointState, an array with the joints' names, or where the
joints went next), a velocity of the tool (TwistStamped, Twist), a pose of the tool (PoseStamped). Arms take joint trajectories,
joint positions, poses or velocities. What cannot be turned into what the arm takes is refused when the node is configured.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import numpy as np

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, NextState
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.action_goals import QUATERNION, TOOL_TYPES, Goal, JointGoal, PoseGoal, TwistGoal, read_action, where
from qtransformer_ros.arm.motion import Command, JointMotion, Motion, PoseMotion, TwistMotion
from qtransformer_ros.arm.rotation import from_vector, inverse, multiply, rotate, shortened, to_vector
from qtransformer_ros.arm.safety import Measured

MAX_LEAD_M, MAX_LEAD_RAD = 0.015, 0.1
"""How far a commanded pose may be ahead of the measured one before it is added to: a blocked arm stores up no motion."""


class ImpossibleActionError(QTransformerError):
    """An action that means no motion, as a quaternion of length 0."""


class Output(Enum):
    """What the arm takes."""

    joint_trajectory = "joint_trajectory"
    """JointTrajectory of positions: ros2_control's JointTrajectoryController. The default."""
    commands = "commands"
    """Float64MultiArray of joint positions, streamed: ros2_control's forward_command_controller."""
    target_pose = "target_pose"
    """PoseStamped: Cartesian controllers, MoveIt Servo's pose tracking."""
    delta_twist_cmds = "delta_twist_cmds"
    """TwistStamped in the tool's frame, streamed: MoveIt Servo."""
    as_contract = "as_contract"
    """The contract's own topic and type: what was logged."""


DEFAULT_TOPICS = {
    Output.joint_trajectory: ("joint_trajectory_controller/joint_trajectory", "JointTrajectory"),
    Output.commands: ("forward_position_controller/commands", "Float64MultiArray"),
    Output.target_pose: ("target_pose", "PoseStamped"),
    Output.delta_twist_cmds: ("servo_node/delta_twist_cmds", "TwistStamped"),
}
JOINT_OUTPUTS = (Output.joint_trajectory, Output.commands)


class Kinematics(Protocol):
    """`ik.InverseKinematics`, or a test's."""

    joints: tuple[str, ...]

    def forward(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def solve(self, position: np.ndarray, orientation: np.ndarray, measured: np.ndarray) -> np.ndarray: ...


class CommandMaker:
    """Turns actions of one contract into commands for one arm.

    Args:
        contract: what the actions mean.
        output: what the arm takes.
        kinematics: makes the arm's; called where Cartesian actions are to become joint positions.
        command_rate_hz: points of a joint trajectory per second, and how often a stream repeats.

    Raises:
        ConfigError: the actions cannot be put to the arm like that; says what else there is.
    """

    def __init__(
        self,
        contract: TopicContract,
        output: Output = Output.joint_trajectory,
        kinematics: Callable[[], Kinematics] | None = None,
        command_rate_hz: float = 50.0,
    ) -> None:
        self.period_s = 1.0 / contract.control_hz
        self.points = max(1, round(command_rate_hz * self.period_s))
        self._goal, source, self.switches = read_action(contract)
        self.topic, self.type = _destination(self._goal, source, output, kinematics is not None)
        solves = not isinstance(self._goal, JointGoal) and self.type not in TOOL_TYPES
        self._kinematics = kinematics() if solves and kinematics else None
        self.last: Motion | None = None
        """The motion last sent, which the next continues; None after a hold."""

    @property
    def joints(self) -> tuple[str, ...]:
        """Joints of its motions; none for Cartesian ones."""
        if isinstance(self._goal, JointGoal):
            return self._goal.joints
        return self._kinematics.joints if self._kinematics else ()

    @property
    def needs_pose(self) -> bool:
        """Whether the tool's measured pose must be known: poses are limited relative to it."""
        return self.type == "PoseStamped"

    @property
    def streams(self) -> bool:
        """Whether the arm wants to be told again and again within a control period."""
        return self.type in ("TwistStamped", "Twist", "Float64MultiArray", "Float32MultiArray", "JointState")

    def __call__(self, action: np.ndarray, measured: Measured) -> Command:
        """The command for an action (n,) in robot units.

        Raises:
            QTransformerError: the action means no motion, or one the arm cannot make; nothing may be sent then.
        """
        action = np.asarray(action, np.float64)
        if not np.isfinite(action).all():
            raise ImpossibleActionError(f"the action holds NaN or infinity: {action}")
        switches = {switch.topic: action[list(switch.dims)] for switch in self.switches}
        return Command(motion=self._motion(action, measured), switches=switches)

    def hold(self, measured: Measured, time_s: float) -> Motion | None:
        """What keeps the arm where it is, reached within `time_s`; None if where that is was not measured."""
        if self.type in ("TwistStamped", "Twist"):
            return TwistMotion(linear=np.zeros(3), angular=np.zeros(3))
        if self.type == "PoseStamped":
            if measured.position is None or measured.orientation is None:
                return None
            return PoseMotion(position=measured.position, orientation=measured.orientation)
        if not set(self.joints) <= set(measured.joints):
            return None
        return JointMotion(joints=self.joints, positions=_positions(measured, self.joints)[None], times_s=(time_s,))

    def _motion(self, action: np.ndarray, measured: Measured) -> Motion:
        if isinstance(self._goal, JointGoal):
            here = _positions(measured, self._goal.joints)
            goal = action[list(self._goal.dims)] + (here if self._goal.relative else 0.0)
            return self._chunk(self._goal.joints, goal, here)
        if isinstance(self._goal, TwistGoal):
            twist = _twist(self._goal, action, self.period_s)
            if self.type in ("TwistStamped", "Twist"):
                return twist
            pose = self._moved(twist, measured)
        else:
            pose = _pose(self._goal, action, lambda: self._measured_pose(measured))
        if self._kinematics is None:
            return pose
        here = _positions(measured, self._kinematics.joints)
        return self._chunk(self._kinematics.joints, self._kinematics.solve(pose.position, pose.orientation, here), here)

    def _chunk(self, joints: tuple[str, ...], goal: np.ndarray, measured: np.ndarray) -> JointMotion:
        """Straight in joint space, from where the last motion ends (else from the measured positions), over one control period."""
        start = measured
        if isinstance(self.last, JointMotion) and self.last.joints == joints:
            start = self.last.positions[-1]
        share = np.arange(1, self.points + 1) / self.points
        positions = start + share[:, None] * (goal - start)
        return JointMotion(joints=joints, positions=positions, times_s=tuple((share * self.period_s).tolist()))

    def _moved(self, twist: TwistMotion, measured: Measured) -> PoseMotion:
        """Where a velocity of the tool, in its own frame, leads within one period."""
        start = self._start(self._measured_pose(measured))
        return PoseMotion(
            position=start.position + rotate(start.orientation, twist.linear) * self.period_s,
            orientation=multiply(start.orientation, from_vector(twist.angular * self.period_s)),
        )

    def _start(self, measured: PoseMotion) -> PoseMotion:
        """The pose last commanded, pulled to within the allowed lead of the measured one; else the measured one."""
        last = self.last
        if isinstance(last, JointMotion) and self._kinematics is not None:
            position, orientation = self._kinematics.forward(last.positions[-1])
            last = PoseMotion(position=position, orientation=orientation)
        if not isinstance(last, PoseMotion):
            return measured
        ahead = last.position - measured.position
        turn = to_vector(multiply(inverse(measured.orientation), last.orientation))
        return PoseMotion(
            position=measured.position + shortened(ahead, MAX_LEAD_M),
            orientation=multiply(measured.orientation, from_vector(shortened(turn, MAX_LEAD_RAD))),
        )

    def _measured_pose(self, measured: Measured) -> PoseMotion:
        if self._kinematics is not None:
            position, orientation = self._kinematics.forward(_positions(measured, self._kinematics.joints))
            return PoseMotion(position=position, orientation=orientation)
        if measured.position is None or measured.orientation is None:
            raise ImpossibleActionError("the tool's pose is not known: nothing was heard on ee_pose")
        return PoseMotion(position=measured.position, orientation=measured.orientation)


def _destination(goal: Goal, source: ActionTopic | NextState, output: Output, solves: bool) -> tuple[str, str]:
    """(topic, type) of the motion, if the goal can be put to the arm like that."""
    own = (source.topic, source.type) if isinstance(source, ActionTopic) else None
    if output is Output.as_contract:
        if own is None:
            raise ConfigError(
                "output=as_contract: the actions are differences of states, which no topic takes; use output:=joint_trajectory"
            )
        return own
    if isinstance(goal, JointGoal) and output not in JOINT_OUTPUTS:
        raise ConfigError(
            f"output={output.value}: the policy's actions are joint positions, and the arm's controller cannot be given a pose or "
            "velocity of the tool; use output:=joint_trajectory, or output:=commands"
        )
    if not isinstance(goal, JointGoal) and output in JOINT_OUTPUTS and not solves:
        raise ConfigError(
            f"output={output.value}: the policy's actions are Cartesian ({where(source)}). Two ways lead to the arm: its own "
            "Cartesian controller (output:=delta_twist_cmds or output:=target_pose), or inverse kinematics with its model "
            "(urdf:=<file> tool_frame:=<link>)"
        )
    if isinstance(goal, PoseGoal) and output is Output.delta_twist_cmds:
        raise ConfigError("output=delta_twist_cmds: the policy's actions are poses, not velocities; use output:=target_pose")
    default = DEFAULT_TOPICS[output]
    return own if own and own[1] == default[1] else default


def _positions(measured: Measured, joints: tuple[str, ...]) -> np.ndarray:
    missing = [joint for joint in joints if joint not in measured.joints]
    if missing:
        raise ImpossibleActionError(f"the measured positions of {', '.join(missing)} are not known: they are not in joint_states")
    return np.array([measured.joints[joint] for joint in joints])


def _twist(goal: TwistGoal, action: np.ndarray, period_s: float) -> TwistMotion:
    values = np.array([action[goal.dims[v]] if v in goal.dims else 0.0 for v in ("vx", "vy", "vz", "wx", "wy", "wz")])
    if goal.per_step:
        values = values / period_s
    return TwistMotion(linear=values[:3], angular=values[3:])


def _pose(goal: PoseGoal, action: np.ndarray, measured: Callable[[], PoseMotion]) -> PoseMotion:
    """What the action says of the pose; the rest is as measured."""
    said = {value: action[dim] for value, dim in goal.dims.items()}
    if len(said) < 7:
        here = measured()
        said = dict(zip(("x", "y", "z", *QUATERNION), (*here.position, *here.orientation), strict=True)) | said
    position = np.array([said[axis] for axis in "xyz"])
    orientation = np.array([said[value] for value in QUATERNION])
    length = float(np.linalg.norm(orientation))
    if length < 0.1:
        raise ImpossibleActionError(f"the action's quaternion {orientation} has length {length:.2g}: it is no orientation")
    return PoseMotion(position=position, orientation=orientation / length)

"""Arms: what differs between two of them is data (`ArmModel`); what they do is the same (`Arm`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pybullet

from qtransformer_sim.bullet import Bullet
from qtransformer_sim.camera import CAMERAS, Camera
from qtransformer_sim.controller import CartesianController, GripperPose, Workspace
from qtransformer_sim.low_poly import low_poly_model


@dataclass(frozen=True)
class Finger:
    """One finger: the joints that move it and the links that touch."""

    joints: tuple[str, ...]
    open: tuple[float, ...]
    """Joint positions when open [rad] or [m]."""
    closed: tuple[float, ...]
    """Joint positions when closed on nothing [rad] or [m]."""
    links: tuple[str, ...]
    """Links that count as this finger in contacts; the last one is its tip."""


@dataclass(frozen=True)
class ArmModel:
    """An arm with a two-finger gripper, as data. A further arm is a further entry in `ARMS`."""

    file: str
    """Model file (SDF or URDF), relative to PyBullet's data."""
    joints: tuple[str, ...]
    """The arm's joints, base first."""
    home: tuple[float, ...]
    """Joint positions [rad] over the table, gripper down, yaw 0: every inverse-kinematics search starts here."""
    tool_link: str
    """Link that carries the gripper."""
    tool_point: tuple[float, float, float]
    """Point between the closed fingertips, in the tool link's frame [m]."""
    tool_down_rpy: tuple[float, float, float]
    """The tool link in the base frame at yaw 0, roll-pitch-yaw [rad]: fingers down, closing along the base's x."""
    fingers: tuple[Finger, Finger]
    workspace: Workspace
    joint_force: float
    """Largest torque of an arm joint [N m]."""
    finger_force: float
    """Largest torque [N m] or force [N] of a finger joint."""
    finger_speed: float
    """[rad/s] or [m/s]"""
    finger_zone: tuple[float, float] = (0.05, 0.085)
    """Where the open fingers come down: distances from between the fingertips, along the closing direction [m]."""
    mounts: Mapping[str, Camera] = field(default_factory=dict)
    """Cameras that sit elsewhere on this arm than `CAMERAS` says."""

    def camera(self, name: str) -> Camera:
        """A camera of `CAMERAS` as it is mounted on this arm."""
        return self.mounts.get(name, CAMERAS[name])


ARMS: dict[str, ArmModel] = {
    "kuka": ArmModel(
        file="kuka_iiwa/kuka_with_gripper2.sdf",
        joints=("J0", "J1", "J2", "J3", "J4", "J5", "J6"),
        home=(0.0, 0.61, 0.0, -1.59, 0.0, 0.94, 0.0),
        tool_link="lbr_iiwa_link_7",
        tool_point=(0.0, 0.0215, 0.284),
        tool_down_rpy=(0.0, math.pi, 0.0),
        fingers=(
            Finger(
                ("base_left_finger_joint", "left_base_tip_joint"),
                (-0.34, 0.0),
                (0.0, 0.0),
                ("left_finger", "left_finger_base", "left_finger_tip"),
            ),
            Finger(
                ("base_right_finger_joint", "right_base_tip_joint"),
                (0.34, 0.0),
                (0.0, 0.0),
                ("right_finger", "right_finger_base", "right_finger_tip"),
            ),
        ),
        workspace=Workspace((0.41, -0.14, 0.005), (0.69, 0.14, 0.32), max_yaw=2.0),
        joint_force=150.0,
        finger_force=2.0,
        finger_speed=2.0,
    ),
    "panda": ArmModel(
        file="franka_panda/panda.urdf",
        joints=tuple(f"panda_joint{i}" for i in range(1, 8)),
        home=(0.0, 0.16, 0.0, -2.2, 0.0, 2.36, -math.pi / 4),
        tool_link="panda_hand",
        tool_point=(0.0, 0.0, 0.1105),
        tool_down_rpy=(math.pi, 0.0, math.pi / 2),
        fingers=(
            Finger(("panda_finger_joint1",), (0.04,), (0.0,), ("panda_leftfinger",)),
            Finger(("panda_finger_joint2",), (0.04,), (0.0,), ("panda_rightfinger",)),
        ),
        workspace=Workspace((0.41, -0.14, 0.005), (0.69, 0.14, 0.32), max_yaw=1.8),  # the last joint reaches no further
        joint_force=87.0,
        finger_force=20.0,
        finger_speed=0.2,
        finger_zone=(0.035, 0.07),
        # Further out and flatter than on other arms: past the broad hand, the fingertips are at the image's upper third.
        mounts={"wrist": Camera("gripper", (0.0, -0.115, 0.175), (0.0, -0.045, 0.0), (0.0, 1.0, 0.0), fov=56.0)},
    ),
}


class Arm:
    """An arm in a world: where it is, what it is told, what it touches."""

    def __init__(self, model: ArmModel, control_dt: float) -> None:
        self.model = model
        self.controller = CartesianController(model.workspace, self.solve_ik, control_dt)
        self.gripper_closed = False
        """What the gripper was last told."""
        self._file = low_poly_model(model.file)
        self._tool_down_quaternion = pybullet.getQuaternionFromEuler(model.tool_down_rpy)
        self._tool_down = np.reshape(pybullet.getMatrixFromQuaternion(self._tool_down_quaternion), (3, 3))

    def load_model(self, bullet: Bullet, path: str) -> int:
        """Load a model file, base fixed at the origin of the base frame. Returns its body number."""
        return bullet.loadSDF(path)[0] if path.endswith(".sdf") else bullet.loadURDF(path, useFixedBase=True)

    def load(self, bullet: Bullet) -> None:
        """Put the arm into an emptied world, gripper open, at its home."""
        self.bullet = bullet
        self.body = self.load_model(bullet, self._file)
        infos = [bullet.getJointInfo(self.body, j) for j in range(bullet.getNumJoints(self.body))]
        joint_index = {info[1].decode(): j for j, info in enumerate(infos)}
        link_index = {info[12].decode(): j for j, info in enumerate(infos)}
        self._joints = [joint_index[name] for name in self.model.joints]
        self._tool = link_index[self.model.tool_link]
        self._fingers = [[joint_index[name] for name in finger.joints] for finger in self.model.fingers]
        self.finger_links = [{link_index[name] for name in finger.links} for finger in self.model.fingers]
        self._tips = [link_index[finger.links[-1]] for finger in self.model.fingers]
        self._movable = [j for j, info in enumerate(infos) if info[2] != pybullet.JOINT_FIXED]
        home = dict(zip(self._joints, self.model.home, strict=True))
        self._search_start = [home.get(j, 0.0) for j in self._movable]
        # Bullet's inverse kinematics takes the base's centre of mass for its origin.
        self._ik_origin = np.array(bullet.getDynamicsInfo(self.body, -1)[3])
        self._place(self.model.home, closed=True)
        # The two material points of the fingertips that meet when the gripper closes: their distance is its width.
        meeting = self._link_frame(self._tool) @ np.array([*self.model.tool_point, 1.0])
        self._pads = [np.linalg.solve(self._link_frame(tip), meeting) for tip in self._tips]
        self._place(self.model.home, closed=False)
        for finger in self.finger_links:
            for link in finger:
                bullet.changeDynamics(self.body, link, lateralFriction=1.0, spinningFriction=0.1)

    def reset(self, pose: GripperPose) -> None:
        """Jump to a pose with the gripper open. Only between episodes: while one runs, the arm moves through its motors."""
        self.gripper_closed = False
        self.controller.reset()
        self._place(self.solve_ik(self.model.workspace.clip(pose)), closed=False)
        self._drive_fingers()
        self.command(np.zeros(4))

    def command(self, delta: np.ndarray) -> None:
        """Move the commanded pose by `delta` (dx, dy, dz [m] in the gripper frame, dyaw [rad]) and set the joints' motors."""
        command = self.controller.command(delta, self.gripper_pose(), self.joint_positions())
        self.drive(command.positions, command.speeds)

    def drive(self, positions: np.ndarray, speeds: np.ndarray) -> None:
        """Set the joints' motors: targets (j,) [rad] and the speeds (j,) [rad/s] at which to approach them."""
        for joint, position, speed in zip(self._joints, positions, speeds, strict=True):
            self.bullet.setJointMotorControl2(
                self.body,
                joint,
                pybullet.POSITION_CONTROL,
                targetPosition=float(position),
                force=self.model.joint_force,
                positionGain=0.3,
                maxVelocity=float(speed),
            )

    def command_gripper(self, closed: bool) -> None:
        """Start to close or to open the fingers."""
        if closed != self.gripper_closed:
            self.gripper_closed = closed
            self._drive_fingers()

    def gripper_pose(self) -> GripperPose:
        """Measured pose of the gripper in the base frame."""
        frame = self._link_frame(self._tool)
        down = frame[:3, :3] @ self._tool_down.T
        return GripperPose(frame[:3, :3] @ self.model.tool_point + frame[:3, 3], math.atan2(down[1, 0], down[0, 0]))

    def gripper_to_base(self) -> np.ndarray:
        """Measured gripper frame (x along the closing direction, z up) in the base frame, (4, 4)."""
        pose = self.gripper_pose()
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        x, y, z = pose.position
        return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])

    def gripper_width(self) -> float:
        """Measured distance between the fingertips [m]."""
        left, right = (self._link_frame(tip) @ pad for tip, pad in zip(self._tips, self._pads, strict=True))
        return float(np.linalg.norm(left - right))

    def joint_positions(self) -> np.ndarray:
        """Measured joint positions [rad], (j,)."""
        return np.array([state[0] for state in self.bullet.getJointStates(self.body, self._joints)])

    def holds(self, body: int) -> bool:
        """Whether both fingers touch a body."""
        touching = {contact[3] for contact in self.bullet.getContactPoints(self.body, body)}
        return all(touching & links for links in self.finger_links)

    def solve_ik(self, pose: GripperPose) -> np.ndarray:
        """Joint positions (j,) [rad] that put the gripper at a pose.

        The search starts at home whatever the arm does now, so joints are a function of the pose: the elbow cannot
        wander over an episode, and no state outlives it.
        """
        _, orientation = pybullet.multiplyTransforms(
            [0, 0, 0], pybullet.getQuaternionFromEuler([0, 0, pose.yaw]), [0, 0, 0], self._tool_down_quaternion
        )
        tool_to_base = np.reshape(pybullet.getMatrixFromQuaternion(orientation), (3, 3))
        solution = self.bullet.calculateInverseKinematics(
            self.body,
            self._tool,
            (pose.position - tool_to_base @ self.model.tool_point - self._ik_origin).tolist(),
            orientation,
            currentPositions=self._search_start,
            maxNumIterations=100,
            residualThreshold=1e-6,
        )
        by_joint = dict(zip(self._movable, solution, strict=True))
        return np.array([by_joint[joint] for joint in self._joints])

    def _place(self, joints: np.ndarray | tuple[float, ...], *, closed: bool) -> None:
        """Set joint positions directly, fingers included."""
        for joint, position in zip(self._joints, joints, strict=True):
            self.bullet.resetJointState(self.body, joint, float(position))
        for finger, indices in zip(self.model.fingers, self._fingers, strict=True):
            for joint, position in zip(indices, finger.closed if closed else finger.open, strict=True):
                self.bullet.resetJointState(self.body, joint, position)

    def _drive_fingers(self) -> None:
        for finger, indices in zip(self.model.fingers, self._fingers, strict=True):
            for joint, position in zip(indices, finger.closed if self.gripper_closed else finger.open, strict=True):
                self.bullet.setJointMotorControl2(
                    self.body,
                    joint,
                    pybullet.POSITION_CONTROL,
                    targetPosition=position,
                    force=self.model.finger_force,
                    maxVelocity=self.model.finger_speed,
                )

    def _link_frame(self, link: int) -> np.ndarray:
        """Pose of a link in the base frame, (4, 4)."""
        state = self.bullet.getLinkState(self.body, link, computeForwardKinematics=1)
        frame = np.eye(4)
        frame[:3, :3] = np.reshape(pybullet.getMatrixFromQuaternion(state[5]), (3, 3))
        frame[:3, 3] = state[4]
        return frame

"""Messages of ours from arrays, and arrays from what the policy is asked."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Twist, TwistStamped, Vector3
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import (
    Bool,
    Float32,
    Float32MultiArray,
    Float64,
    Float64MultiArray,
    Header,
    Int32,
    MultiArrayDimension,
    MultiArrayLayout,
    String,
)
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qtransformer.errors import SpecMismatchError
from qtransformer.types import Observation
from qtransformer_datasets.rosbag.ros_messages import DIGEST_KEY, observation_digest
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.arm.motion import JointMotion, Motion, PoseMotion, TwistMotion

MESSAGE_CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Image, CompressedImage, JointState, JointTrajectory, PoseStamped, TwistStamped, Twist,
        Float64MultiArray, Float32MultiArray, Float64, Float32, Int32, Bool, String,
    )
}  # fmt: skip
"""By the names contracts use."""
LEVELS = {
    "ok": DiagnosticStatus.OK,
    "warn": DiagnosticStatus.WARN,
    "error": DiagnosticStatus.ERROR,
    "stale": DiagnosticStatus.STALE,
}
UNHEARD = "unheard"
"""Key in the recorder's status: topics of its contract that no publisher is connected on, so that what is sent there is lost."""


def message_class(ros_name: str) -> Any:
    """The class of `sensor_msgs/msg/Image`, or of a service's events."""
    package, folder, name = ros_name.split("/")
    module = import_module(f"{package}.{folder}")
    return getattr(module, name.removesuffix("_Event")).Event if name.endswith("_Event") else getattr(module, name)


def time_message(ns: int) -> Time:
    """Nanoseconds of ROS time as a stamp."""
    return Time(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)


def motion_messages(
    motion: Motion, kind: str, now_ns: int, frame: str, repeat_s: float, period_s: float
) -> Iterator[tuple[float, Any]]:
    """(when [s] from now, message) for every message that a motion is sent as.

    Trajectories and poses are sent once. Positions are streamed, one message per point; a velocity is repeated every `repeat_s`
    within the control period, for controllers that stop when they hear nothing.
    """
    if isinstance(motion, JointMotion) and kind == "JointTrajectory":
        yield 0.0, trajectory(motion)
    elif isinstance(motion, JointMotion):
        for due, positions in zip((0.0, *motion.times_s), motion.positions, strict=False):  # each point when the one before is due
            yield due, positions_message(kind, motion.joints, positions, now_ns + round(due * 1e9))
    elif isinstance(motion, TwistMotion):
        for i in range(max(1, round(period_s / repeat_s))):
            yield i * repeat_s, twist_message(kind, motion, now_ns + round(i * repeat_s * 1e9), frame)
    else:
        yield 0.0, pose_message(motion, now_ns, frame)


def trajectory(motion: JointMotion) -> JointTrajectory:
    """Positions only, to start now: what ros2_control's JointTrajectoryController takes of learned policies."""
    points = [
        JointTrajectoryPoint(positions=row.tolist(), time_from_start=_duration(due))
        for row, due in zip(motion.positions, motion.times_s, strict=True)
    ]
    return JointTrajectory(joint_names=list(motion.joints), points=points)


def positions_message(kind: str, joints: Sequence[str], positions: np.ndarray, now_ns: int) -> Any:
    if kind == "JointState":
        return JointState(header=Header(stamp=time_message(now_ns)), name=list(joints), position=positions.tolist())
    return MESSAGE_CLASSES[kind](data=positions.tolist())


def twist_message(kind: str, motion: TwistMotion, now_ns: int, frame: str) -> Any:
    twist = Twist(linear=_vector(Vector3, motion.linear), angular=_vector(Vector3, motion.angular))
    return twist if kind == "Twist" else TwistStamped(header=Header(stamp=time_message(now_ns), frame_id=frame), twist=twist)


def pose_message(motion: PoseMotion, now_ns: int, frame: str) -> PoseStamped:
    x, y, z, w = motion.orientation.tolist()
    pose = Pose(position=_vector(Point, motion.position), orientation=Quaternion(x=x, y=y, z=z, w=w))
    return PoseStamped(header=Header(stamp=time_message(now_ns), frame_id=frame), pose=pose)


def switch_message(kind: str, numbers: np.ndarray) -> Any:
    """A gripper, a flag: an array, or one number."""
    if kind.endswith("MultiArray"):
        return MESSAGE_CLASSES[kind](data=numbers.tolist())
    value = float(numbers[0])
    return MESSAGE_CLASSES[kind](data=value > 0.5 if kind == "Bool" else round(value) if kind == "Int32" else value)


def proposed(motion: Motion) -> JointTrajectory:
    """Any motion as a trajectory, to look at: a pose or velocity of the tool goes under the names of its numbers."""
    if isinstance(motion, JointMotion):
        return trajectory(motion)
    if isinstance(motion, TwistMotion):
        point = JointTrajectoryPoint(velocities=[*motion.linear.tolist(), *motion.angular.tolist()])
        return JointTrajectory(joint_names=["vx", "vy", "vz", "wx", "wy", "wz"], points=[point])
    point = JointTrajectoryPoint(positions=[*motion.position.tolist(), *motion.orientation.tolist()])
    return JointTrajectory(joint_names=["x", "y", "z", "qx", "qy", "qz", "qw"], points=[point])


def action_message(names: Sequence[str], action: np.ndarray, newest_ns: int) -> JointState:
    return JointState(
        header=Header(stamp=time_message(newest_ns)), name=list(names), position=np.asarray(action, np.float64).tolist()
    )


def consumed_message(stamps: Mapping[str, int], observation: Observation, decided_ns: int) -> DiagnosticArray:
    """Topic to stamp [ns], of every sample an action was computed from, and the digest of the observation that they became."""
    said = {**stamps, DIGEST_KEY: observation_digest(observation)}
    values = [KeyValue(key=key, value=str(value)) for key, value in said.items()]
    status = DiagnosticStatus(level=LEVELS["ok"], name="consumed", values=values)
    return DiagnosticArray(header=Header(stamp=time_message(decided_ns)), status=[status])


def table_message(values: np.ndarray, rows: str, columns: str) -> Float32MultiArray:
    """float (r, c), row by row."""
    r, c = values.shape
    layout = MultiArrayLayout(
        dim=[MultiArrayDimension(label=rows, size=r, stride=r * c), MultiArrayDimension(label=columns, size=c, stride=c)]
    )
    return Float32MultiArray(layout=layout, data=np.asarray(values, np.float32).ravel().tolist())


def status_message(name: str, level: str, text: str, hardware_id: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=_plain(value)) for key, value in values.items()]
    return DiagnosticStatus(level=LEVELS[level], name=name, message=text, hardware_id=hardware_id, values=pairs)


def diagnostics_message(status: DiagnosticStatus, now_ns: int) -> DiagnosticArray:
    return DiagnosticArray(header=Header(stamp=time_message(now_ns)), status=[status])


def candidates(message: JointTrajectory, names: Sequence[str], most: int) -> np.ndarray:
    """Candidate actions (k, n) in robot units: one per point, columns in the policy's order whatever the message's.

    Raises:
        SpecMismatchError: names that are not the policy's, points of another length, or more of them than `most`.
    """
    if sorted(message.joint_names) != sorted(names):
        raise SpecMismatchError(
            f"candidate actions expected joint_names {', '.join(names)}, in any order, "
            f"found {', '.join(message.joint_names) or 'none'}"
        )
    if not 0 < len(message.points) <= most:
        raise SpecMismatchError(f"candidate actions expected from 1 to {most} points, found {len(message.points)}")
    for i, point in enumerate(message.points):
        if len(point.positions) != len(names):
            raise SpecMismatchError(f"candidate actions expected {len(names)} positions at point {i}, found {len(point.positions)}")
    columns = [list(message.joint_names).index(name) for name in names]
    return np.array([point.positions for point in message.points], np.float64)[:, columns]


def scored(
    message: JointTrajectory, names: Sequence[str], actions: np.ndarray, scores: np.ndarray, stamp_ns: int
) -> JointTrajectory:
    """The candidates, in the policy's order, with Q after each dimension as `effort`."""
    points = [
        JointTrajectoryPoint(positions=a.tolist(), effort=q.tolist())
        for a, q in zip(actions, scores.astype(np.float64), strict=True)
    ]
    header = Header(stamp=time_message(stamp_ns), frame_id=message.header.frame_id)
    return JointTrajectory(header=header, joint_names=list(names), points=points)


def _vector(kind: Any, values: np.ndarray) -> Any:
    x, y, z = (float(v) for v in values)
    return kind(x=x, y=y, z=z)


def _duration(seconds: float) -> Duration:
    ns = round(seconds * 1e9)
    return Duration(sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

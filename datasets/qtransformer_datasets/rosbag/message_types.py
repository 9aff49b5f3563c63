"""The ROS 2 message types that observations, commands and events may come as. Data only: no ROS is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MessageType:
    """What is fixed about a message type, whichever robot sends it. All are the same in every ROS 2 release since Foxy."""

    name: str
    """Its ROS name, as in `sensor_msgs/msg/JointState`."""
    stamped: bool
    """Whether it begins with a `std_msgs/Header`."""
    values: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Value name to (attribute, unit), where the type itself says what its numbers are."""


_POSITION = {axis: (f"pose.position.{axis}", "m") for axis in "xyz"}
_ROTATION = {f"q{axis}": (f"pose.orientation.{axis}", "1") for axis in "xyzw"}


def _spatial(outer: str, linear: tuple[str, str, str], angular: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """Six values of two vectors, each given as (letter, field, unit)."""
    return {f"{letter}{axis}": (f"{outer}{vector}.{axis}", unit) for letter, vector, unit in (linear, angular) for axis in "xyz"}


_LINEAR, _ANGULAR = ("v", "linear", "m/s"), ("w", "angular", "rad/s")

CAMERA_TYPES = {
    "Image": MessageType("sensor_msgs/msg/Image", True),
    "CompressedImage": MessageType("sensor_msgs/msg/CompressedImage", True),
}
JOINT_TYPES = {
    "JointState": MessageType("sensor_msgs/msg/JointState", True),
    "JointTrajectory": MessageType("trajectory_msgs/msg/JointTrajectory", True),
}
FIXED_TYPES = {
    "PoseStamped": MessageType("geometry_msgs/msg/PoseStamped", True, _POSITION | _ROTATION),
    "TwistStamped": MessageType("geometry_msgs/msg/TwistStamped", True, _spatial("twist.", _LINEAR, _ANGULAR)),
    "Twist": MessageType("geometry_msgs/msg/Twist", False, _spatial("", _LINEAR, _ANGULAR)),
    "WrenchStamped": MessageType(
        "geometry_msgs/msg/WrenchStamped", True, _spatial("wrench.", ("f", "force", "N"), ("t", "torque", "Nm"))
    ),
}
ARRAY_TYPES = {
    "Float64MultiArray": MessageType("std_msgs/msg/Float64MultiArray", False),
    "Float32MultiArray": MessageType("std_msgs/msg/Float32MultiArray", False),
}
NUMBER_TYPES = {
    "Float64": MessageType("std_msgs/msg/Float64", False),
    "Float32": MessageType("std_msgs/msg/Float32", False),
    "Int32": MessageType("std_msgs/msg/Int32", False),
    "Bool": MessageType("std_msgs/msg/Bool", False),
}
REWARD_TYPES = {name: NUMBER_TYPES[name] for name in ("Float64", "Float32")}
WORD_TYPES = {"String": MessageType("std_msgs/msg/String", False), "Bool": NUMBER_TYPES["Bool"]}
CONSUMED_TYPE = MessageType("diagnostic_msgs/msg/DiagnosticArray", True)

STREAMED_TYPES = frozenset(("JointState", *ARRAY_TYPES))
"""As which joint positions are commanded point by point; other types say where they lead in one message."""
SHARED_TYPES = frozenset(("JointState",))
"""Of which every publisher of a topic may tell its own joints, by name. A trajectory is one command, whatever it names."""
VECTOR_TYPES = JOINT_TYPES | FIXED_TYPES | ARRAY_TYPES | NUMBER_TYPES
"""Everything that can be read as a row of numbers."""
SERVICE_EVENT_SUFFIX = "_Event"
"""A recorded service call: any package's `srv/<Name>_Event`, all beginning with `service_msgs/ServiceEventInfo`."""

BY_ROS_NAME = {t.name: t for t in (*(CAMERA_TYPES | VECTOR_TYPES | WORD_TYPES).values(), CONSUMED_TYPE)}

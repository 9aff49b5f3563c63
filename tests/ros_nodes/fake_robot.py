"""A robot in the test's process that a policy can act on."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, JointState

from qtransformer_ros.nodes.messages import time_message
from tests.ros_nodes.harness import Probe


@dataclass
class FakeRobot:
    """Publishes a camera at 20 Hz and joints at 50 Hz while the probe spins; stands still but for its encoders' noise."""

    probe: Probe
    joints: dict[str, float] = field(default_factory=lambda: {"shoulder": 0.05, "elbow": -0.1})
    camera: bool = True
    """Whether the camera runs."""
    pixels: np.ndarray | None = None
    """uint8 (16, 16, 3): what it sees again and again; by default noise, ever new."""
    sent: dict[str, list[int]] = field(default_factory=lambda: {"camera/wrist/image_raw": [], "joint_states": []})
    """Stamps [ns]"""

    def __post_init__(self) -> None:
        node = self.probe.node
        self._image = node.create_publisher(Image, "camera/wrist/image_raw", 5)
        self._states = node.create_publisher(JointState, "joint_states", 5)
        self._rng = np.random.default_rng(0)
        node.create_timer(0.05, self._see)
        node.create_timer(0.02, self._measure)

    def _see(self) -> None:
        if self.camera:
            pixels = self._rng.integers(0, 255, (16, 16, 3), np.uint8) if self.pixels is None else self.pixels
            message = Image(height=16, width=16, encoding="rgb8", step=48, data=pixels.tobytes())
            message.header.stamp = self._stamp("camera/wrist/image_raw")
            self._image.publish(message)

    def _measure(self) -> None:
        noise = 1e-12 * len(self.sent["joint_states"])  # nothing that float32 or a tolerance would see
        message = JointState(name=list(self.joints), position=[position + noise for position in self.joints.values()])
        message.header.stamp = self._stamp("joint_states")
        self._states.publish(message)

    def _stamp(self, topic: str) -> Any:
        now = self.probe.node.get_clock().now().nanoseconds
        self.sent[topic].append(now)
        return time_message(now)

    def go_blind(self) -> None:
        self.camera = False

    def break_joint(self) -> None:
        self.joints["elbow"] = math.nan

"""What lies between an arm and whoever looks at it: a process that passes samples on, and can be stopped, killed or disturbed."""

from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from qtransformer_ros.nodes.parameters import flag, texts
from qtransformer_ros.nodes.qos import EVERY
from qtransformer_ros.nodes.running import run

KINDS = {"camera/wrist/image_raw": Image, "joint_states": JointState, "tool_state": JointState}
HUGE = 3e38
"""Finite as a float32."""


class Relay(Node):
    """Passes `arm/<topic>` on as `<topic>`."""

    def __init__(self) -> None:
        super().__init__("relay")
        self.overflows = flag(self, "overflow", False, "pass finite numbers on that no robot measures")
        for topic in texts(self, "topics", [], "what to pass on", read_only=True).value:
            self._pass_on(topic, self.create_publisher(KINDS[topic], topic, EVERY))

    def on_stop(self) -> None:
        pass

    def _pass_on(self, topic: str, publisher: Any) -> None:
        def receive(message: Any) -> None:
            if topic == "tool_state" and self.overflows.value:
                message.position = [HUGE] * len(message.position)
            publisher.publish(message)

        self.create_subscription(KINDS[topic], f"arm/{topic}", receive, EVERY)


def main() -> int:
    return run(Relay)

"""What lies between an arm and whoever looks at it: a process that passes samples on, and can be stopped, killed or disturbed."""

from typing import Any

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from qtransformer_ros.common_node import EVERY, flag, run, texts

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

        # Best effort: an arm that waited for a frozen relay's acknowledgements would be late with all its other samples, too.
        self.create_subscription(KINDS[topic], f"arm/{topic}", receive, qos_profile_sensor_data)


def main() -> int:
    return run(Relay)

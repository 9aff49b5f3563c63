"""An e-stop that is not pressed, and says so, in a process that can be stopped."""

from rclpy.node import Node
from std_msgs.msg import Bool

from qtransformer_ros.nodes.qos import EVERY
from qtransformer_ros.nodes.running import run


class Button(Node):
    def __init__(self) -> None:
        super().__init__("button")
        estop = self.create_publisher(Bool, "estop", EVERY)
        self.create_timer(0.2, lambda: estop.publish(Bool(data=False)))

    def on_stop(self) -> None:
        pass


def main() -> int:
    return run(Button)

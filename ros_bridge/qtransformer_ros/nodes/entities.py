"""What a part of a node puts on the wire, to be taken off together; and the node's clocks."""

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from qtransformer_ros.nodes.qos import EVERY


class Entities:
    """Publishers, subscriptions and timers of one owner."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._timers: list[Timer] = []

    def publisher(self, kind: Any, topic: str) -> Publisher:
        self._publishers.append(self._node.create_publisher(kind, topic, EVERY))
        return self._publishers[-1]

    def subscription(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        events: SubscriptionEventCallbacks | None = None,
    ) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos, event_callbacks=events))

    def timer(self, period_s: float, callback: Callable[[], None]) -> None:
        # Steady: a watchdog must not stop because ROS time does.
        self._timers.append(self._node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME)))

    def take_waiting(self) -> None:
        """Hand out what has arrived, the clock and the e-stop too, while the executor is not ours to spin."""
        for subscription in self._node.subscriptions:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, False)
            if taken is not None:
                callback: Any = subscription.callback  # ours take the message alone, not what is known of it, too
                callback(taken[0])

    def destroy(self) -> None:
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)


class NodeClock:
    """A `buffer.Clock`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def ros_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

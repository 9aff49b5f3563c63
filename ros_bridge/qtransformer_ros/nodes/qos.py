"""Qualities of service: a profile for each kind of topic."""

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _qos(depth: int, *, reliable: bool, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


# No deadline anywhere: a subscriber that asks for one hears nothing from a publisher that offers none. Time-outs are timers.
LATEST = _qos(1, reliable=False)
"""To hear cameras and states: matches every publisher, and nothing old queues."""
EVERY = _qos(10, reliable=True)
"""Commands, events and states of ours, and what must not be missed."""
IMAGE = _qos(5, reliable=True)
"""Our cameras: a best-effort image of more than half a shared-memory segment would vanish."""
CLOCK = _qos(1, reliable=True)
LATCHED = _qos(1, reliable=True, latched=True)
"""Status: who comes late hears the last one."""
LATCHED_OR_NOT = (EVERY, LATCHED)
"""To hear what a latching publisher said before, and a publisher that does not latch: one subscription does not match both."""
ANY_PUBLISHER = (_qos(1000, reliable=True), LATCHED, _qos(1000, reliable=False))
"""To hear an e-stop from whatever sends it: latched or not, reliable or not. A press may wait behind all that was said while the
node was busy configuring, and must not be pushed out by it."""
HEARD_BY_ANOTHER = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)
"""For these three: one of them matches every publisher, and the others would warn that nothing of it is received."""

"""What `qtransformer-policy` says on topics: commands and holds, and what explains them."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32MultiArray
from trajectory_msgs.msg import JointTrajectory

from qtransformer.policy import PolicyDecision
from qtransformer_ros.arm.motion import Command, Motion
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.control.effects import DecidedAction
from qtransformer_ros.control.inference import ScoreRequest
from qtransformer_ros.control.runtime_settings import RuntimeSettings
from qtransformer_ros.nodes import messages
from qtransformer_ros.nodes.entities import Entities
from qtransformer_ros.nodes.policy_parameters import PolicyParameters
from qtransformer_ros.nodes.running import publish_last
from qtransformer_ros.policy.deployment import Deployment

ONLOOKERS = ("qtransformer_recorder", "rosbag2_recorder", "_ros2cli", "rviz", "rqt", "foxglove_bridge", "plotjuggler")
"""How names of nodes begin that hear commands and obey none: with them alone, nobody listens."""
HOLD_WAITS_S = 0.5
"""How long a hold waits for where the arm is [s]."""


def obeys(node_name: str) -> bool:
    """Whether a subscriber of commands is taken to carry them out."""
    return not node_name.startswith(ONLOOKERS)


class PolicyOutputs:
    """The publishers of a session. In a dry run there are none of commands."""

    def __init__(
        self, node: Node, entities: Entities, parameters: PolicyParameters, deployment: Deployment, settings: RuntimeSettings
    ) -> None:
        self._node, self._maker, self._lockstep = node, deployment.commands, settings.lockstep
        self._names = deployment.policy.action_spec.names
        self._period_s, self._hold_time_s = settings.period_s, parameters.hold_time_s.value
        # In lockstep a command belongs to the instant that was seen, and is said once.
        self._repeat_s = settings.period_s if settings.lockstep else 1.0 / parameters.command_rate_hz.value
        self._frames = {"PoseStamped": parameters.base_frame.value, "TwistStamped": parameters.tool_frame.value}
        self.newest_ns = 0
        """Newest stamp of the observation last decided on."""
        self._stream: deque[tuple[int, Any]] = deque()
        """(when [monotonic ns], message): what is still to be sent of the last motion."""
        self._is_velocity = self._maker.type in ("TwistStamped", "Twist")
        self._until_ns = 0
        """When the control period of the last command ends [monotonic]."""
        self._owes_until_ns = 0
        """Until when a hold waits for where the arm is [monotonic]; 0: none does."""
        self.kinds = {self._maker.topic: self._maker.type, **{switch.topic: switch.type for switch in self._maker.switches}}
        """Topic to type of what is commanded."""
        publisher = entities.publisher
        commanded = {} if settings.dry_run else self.kinds
        self._commands = {topic: publisher(messages.MESSAGE_CLASSES[kind], topic) for topic, kind in commanded.items()}
        self._consumed = publisher(DiagnosticArray, "~/consumed")
        self._action = publisher(JointState, "~/action")
        self._proposed = publisher(JointTrajectory, "~/proposed_trajectory")
        self._q_values = publisher(Float32MultiArray, "~/q_values")
        self._distribution = publisher(Float32MultiArray, "~/value_distribution")
        self._scores = publisher(JointTrajectory, "~/candidate_scores")

    def listeners(self) -> int:
        """How many may obey the command topic that fewest hear."""
        return min(map(self._obeying, self._commands.values()))

    def rivals(self) -> int:
        """How many others publish on the command topic that most do."""
        return max(map(self._others, self._commands.values()))

    def troubles(self) -> Iterator[str]:
        """What keeps commands from being heard, and from being the only ones."""
        for topic, publisher in self._commands.items():
            if others := self._others(publisher):
                yield f"{others} other publisher(s) command {topic}: only one publisher may command the arm; stop the other"
            if not self._obeying(publisher):
                yield f"nobody listens to {topic}: start the controller, or remap the topic to its own"

    def _obeying(self, publisher: Publisher) -> int:
        """How many subscribe to its topic, but for those that only record or show."""
        subscribers = self._node.get_subscriptions_info_by_topic(publisher.topic_name)
        return sum(obeys(subscriber.node_name) for subscriber in subscribers)

    def _others(self, publisher: Publisher) -> int:
        """How many others publish on its topic, by the name it has after remaps."""
        return max(0, self._node.count_publishers(publisher.topic_name) - 1)

    def send(self, command: Command) -> None:
        """Publish a command: switches, then the motion, of which a stream is sent as it falls due."""
        for topic, numbers in command.switches.items():
            self._commands[topic].publish(messages.switch_message(self.kinds[topic], numbers))
        start_ns = time.monotonic_ns()
        stamp_ns = self.newest_ns if self._lockstep else self._now_ns()
        self._stream.clear()
        self._owes_until_ns, self._until_ns = 0, start_ns + round(self._period_s * 1e9)
        for due_s, message in self._messages(command.motion, stamp_ns):
            self._stream.append((start_ns + round(due_s * 1e9), message))
        self._commands[self._maker.topic].publish(self._stream.popleft()[1])

    def send_due(self) -> None:
        """Publish what has fallen due of a stream, one message at a time: after a stall of this node the arm is led on point by
        point. A velocity that is overdue after its control period is dropped: it would prolong the motion."""
        now_ns = time.monotonic_ns()
        if self._is_velocity and now_ns >= self._until_ns:
            self._stream.clear()
        if self._stream and self._stream[0][0] <= now_ns:
            self._commands[self._maker.topic].publish(self._stream.popleft()[1])

    def stop_stream(self) -> None:
        """Send no more of the last motion."""
        self._stream.clear()

    @property
    def owes_hold(self) -> bool:
        """Whether a hold waits for where the arm is."""
        return self._owes_until_ns > 0

    def hold(self, measured: Measured, *, last: bool) -> None:
        """Command the measured pose once, and nothing more; with `last`, wait until it has arrived.

        After a jump of time it is not known where the arm is, until it is measured anew: then the hold waits for that.
        """
        motion = self._maker.hold(measured, self._hold_time_s)
        if motion is None:
            self._owe(give_up=last)
            return
        self._owes_until_ns = 0
        self.propose(motion)
        message = next(self._messages(motion, self._now_ns()))[1]
        publisher = self._commands[self._maker.topic]
        if last:
            publish_last(publisher, message)
        else:
            publisher.publish(message)

    def _owe(self, *, give_up: bool) -> None:
        now_ns = time.monotonic_ns()
        self._owes_until_ns = self._owes_until_ns or now_ns + round(HOLD_WAITS_S * 1e9)
        if give_up or now_ns >= self._owes_until_ns:
            self._owes_until_ns = 0
            self._node.get_logger().error("cannot hold: where the arm is was not measured; its controller must stop by itself")

    def propose(self, motion: Motion) -> None:
        """Say what is, or in a dry run would be, commanded."""
        self._proposed.publish(messages.proposed(motion))

    def explain(self, decided: DecidedAction, decision: PolicyDecision) -> None:
        """Publish what was decided, from which samples and by which values; before the command, so that a log reads in order."""
        stamps = decided.request.stamps
        self.newest_ns = max(stamps.values(), default=0)
        self._consumed.publish(messages.consumed_message(stamps, decided.request.observation, self._now_ns()))
        self._action.publish(messages.action_message(self._names, decided.action, self.newest_ns))
        for publisher, table, columns in (
            (self._q_values, decision.q_values, "bin"),
            (self._distribution, decision.value_probs, "value_bin"),
        ):
            if publisher.get_subscription_count():
                publisher.publish(messages.table_message(table, "dimension", columns))

    def publish_scores(self, request: ScoreRequest, scores: np.ndarray, stamp_ns: int) -> None:
        self._scores.publish(messages.scored(request.tag, self._names, request.actions, scores, stamp_ns))

    def _messages(self, motion: Motion, stamp_ns: int) -> Iterator[tuple[float, Any]]:
        """(when it is due [s from now], message) of a motion."""
        kind = self._maker.type
        return messages.motion_messages(motion, kind, stamp_ns, self._frames.get(kind, ""), self._repeat_s, self._period_s)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

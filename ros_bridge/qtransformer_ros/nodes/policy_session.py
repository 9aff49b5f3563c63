"""A deployed policy on the wire, from `configure` to `cleanup`: its topics, its runtime, its thread."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_ros.arm.safety_limits import SafetyLimits
from qtransformer_ros.control.effects import Effects
from qtransformer_ros.control.inference import InferenceResult, InferenceThread, ScoreRequest, Scores
from qtransformer_ros.control.run_state import RunState
from qtransformer_ros.control.runtime import PolicyRuntime
from qtransformer_ros.nodes import messages
from qtransformer_ros.nodes.entities import Entities, NodeClock
from qtransformer_ros.nodes.policy_outputs import PolicyOutputs
from qtransformer_ros.nodes.policy_parameters import PolicyParameters
from qtransformer_ros.nodes.qos import ANY_PUBLISHER, EVERY, HEARD_BY_ANOTHER, IMAGE, LATCHED_OR_NOT, LATEST
from qtransformer_ros.policy.deployment import Deployment

TOPIC_JOINTS, TOPIC_POSE, TOPIC_ENABLED = "joint_states", "ee_pose", "motion_enabled"
JOIN_S = 2.0
"""How long the network may take to finish when the node ends [s]."""
MAX_CANDIDATES = 1024
LEVELS = {
    RunState.idle: "ok",
    RunState.running: "ok",
    RunState.paused: "warn",
    RunState.hold: "error",
    RunState.estop: "error",
    RunState.fault: "error",
}


class PolicySession:
    """Carries messages to the runtime and the network, and what they say to the outputs."""

    def __init__(
        self, node: LifecycleNode, settings: PolicyParameters, deployment: Deployment, publish_status: Callable[[], None]
    ) -> None:
        """`publish_status` is called when the state, or its reason, changed."""
        self.deployment = deployment
        self._node, self._parameters, self._publish_status = node, settings, publish_status
        self._commands = deployment.commands
        runtime, contract = settings.runtime(deployment.contract.control_hz), deployment.contract
        self.dry_run, self.lockstep, self._period_s = runtime.dry_run, runtime.lockstep, runtime.period_s
        self.limited_joints = deployment.commands.joints
        self._ranges = settings.joint_ranges()
        limits = self.limits()
        self._measuring = self._topics_of_measurements(limits)
        self._pacing_camera = self._camera_that_paces(settings.tick_on.value)
        self._ticked_s = -math.inf
        self.runtime = PolicyRuntime(
            contract,
            deployment.policy.action_spec,
            limits,
            runtime,
            NodeClock(node),
            to_command=lambda action: self._commands(action, self.runtime.measured),
            joint_topic=self._measuring.get("JointState", ""),
            pose_topic=self._measuring.get("PoseStamped", ""),
            base_frame=settings.base_frame.value,
            has_values=not deployment.policy.imitates,
        )
        self.active = False
        self._requested = -1
        """Number of the newest request."""
        self._entities = Entities(node)
        try:
            self._outputs = PolicyOutputs(node, self._entities, settings, deployment, runtime)
            self._listen()
        except Exception:  # a topic's name, for instance
            self._entities.destroy()
            raise
        self._answered = node.create_guard_condition(self._take_answers)
        self._thread = InferenceThread(deployment.policy, self._answered.trigger)
        self._entities.timer(1.0 / settings.command_rate_hz.value, self._watch)
        if not self.lockstep and not self._pacing_camera:
            self._entities.timer(self._period_s, lambda: self.apply(self.runtime.tick()))
        node.get_logger().info(self._summary())

    def activate(self) -> None:
        """Begin to act: RUNNING, or PAUSED where it starts so.

        Raises:
            QTransformerError: the files were swapped, a stream is silent, or the command topics are not ours alone.
        """
        self.deployment.check_unchanged()
        self._await_streams()
        if not self.dry_run:
            self._await_listeners()
        self._count_peers()
        self.active = True
        self.apply(self.runtime.activate())

    def deactivate(self) -> None:
        """A hold, and then silence."""
        self.apply(self.runtime.deactivate(), last=True)
        self.active = False

    def close(self) -> None:
        """Hold if active, then take everything off the wire."""
        try:
            if self.active:
                self.deactivate()
        finally:
            if not self._thread.end(JOIN_S):
                self._node.get_logger().warning("the network still computes; its thread is left to itself")
            self._node.destroy_guard_condition(self._answered)
            self._entities.destroy()

    def apply(self, effects: Effects, *, last: bool = False) -> None:
        """Do what the runtime asks for; with `last`, wait until a hold has arrived."""
        if effects.reset_history or effects.hold:
            self._outputs.stop_stream()
            self._commands.last = None  # the network's thread forgets by the request's generation
        if effects.hold:
            self._outputs.hold(self.runtime.measured, last=last)
        if effects.proposed is not None:
            self._commands.last = effects.proposed.motion
            self._outputs.propose(effects.proposed.motion)
        if effects.command is not None:
            self._outputs.send(effects.command)
        if effects.request is not None:
            self._requested = effects.request.number
            self._thread.decide(effects.request)
        if effects.changed:
            self._node.get_logger().info(self.describe())
            self._publish_status()

    # What comes in

    def _listen(self) -> None:
        contract = self.deployment.contract
        # In lockstep nothing may be lost, for the robot waits; else nothing may queue.
        qos = IMAGE if self.lockstep else LATEST
        kinds = {source.topic: (source.type, qos) for source in contract.observed}
        kinds |= {topic: (kind, qos) for kind, topic in self._measuring.items() if topic not in kinds}
        for topic, (kind, quality) in kinds.items():
            self._entities.subscription(messages.MESSAGE_CLASSES[kind], topic, self._receiver(topic), quality)
        if contract.instruction and (topic := contract.instruction.topic):
            for latched in LATCHED_OR_NOT:
                self._entities.subscription(messages.MESSAGE_CLASSES["String"], topic, self._receiver(topic), latched)
        for quality in ANY_PUBLISHER:
            self._entities.subscription(Bool, TOPIC_ENABLED, self._enable, quality, HEARD_BY_ANOTHER)
        self._entities.subscription(JointTrajectory, "~/score_candidates", self._score, EVERY)

    def _enable(self, message: Bool) -> None:
        self.apply(self.runtime.enable_motion(message.data))

    def _receiver(self, topic: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            self.apply(self.runtime.receive(topic, message))
            if self.lockstep or (topic == self._pacing_camera and self._is_due()):
                self.apply(self.runtime.tick())

        return receive

    def _camera_that_paces(self, tick_on: str) -> str:
        """Topic of the first camera, where its images are the clock: an image is then never older than its way here."""
        cameras = [camera.topic for camera in self.deployment.contract.cameras.values()]
        if tick_on == "image" and not cameras:
            raise ConfigError("tick_on:=image needs a camera, and the contract has none: use tick_on:=timer")
        return cameras[0] if tick_on == "image" else ""

    def _is_due(self) -> bool:
        """Whether an image begins a control period, give or take a tenth: of a camera faster than the policy most do not."""
        now = time.monotonic()
        if now - self._ticked_s < 0.9 * self._period_s:
            return False
        self._ticked_s = now
        return True

    def _watch(self) -> None:
        """At the command rate: time-outs, peers, and what is due of a stream."""
        self._count_peers()
        self.apply(self.runtime.watch())
        self._outputs.send_due()
        if self._outputs.owes_hold:
            self._outputs.hold(self.runtime.measured, last=False)

    def _count_peers(self) -> None:
        """Who listens to our commands, and who else gives them."""
        if not self.dry_run:
            self.apply(self.runtime.listeners(self._outputs.listeners()))
            self.apply(self.runtime.rivals(self._outputs.rivals()))

    def limits(self, **changes: Any) -> SafetyLimits:
        """As the parameters say now, with `changes` of them; of joints as they were when it was configured."""
        return self._parameters.limits(self._ranges, self.limited_joints, **changes)

    def check_limits(self, limits: SafetyLimits) -> str:
        """Why these limits cannot be taken now; "" if they can."""
        return self.runtime.refusal_of(limits)

    def _topics_of_measurements(self, limits: SafetyLimits) -> dict[str, str]:
        """Where holds and limits learn where the arm is, by type: the joints, and the tool where it matters."""
        names = {"JointState": TOPIC_JOINTS} if limits.joints else {}
        if self._commands.needs_pose or limits.has_workspace:
            names["PoseStamped"] = TOPIC_POSE
        return {kind: absolute(name, self._node.get_namespace()) for kind, name in names.items()}

    def _await_streams(self) -> None:
        """Until every stream is fresh. Nothing spins while a transition runs, so messages are taken by hand."""
        if self.lockstep:
            return  # the robot waits for us, and what it said is as old as it is patient
        end = time.monotonic() + self._parameters.activation_timeout_s.value
        while why := self.runtime.complaint():
            if time.monotonic() > end:
                raise ConfigError(f"there is no fresh observation: {why}; is it published, and under that name?")
            self._entities.take_waiting()
            time.sleep(0.005)

    def _await_listeners(self) -> None:
        """Until the command topics have a subscriber and only one publisher, us."""
        end = time.monotonic() + self._parameters.activation_timeout_s.value
        while found := list(self._outputs.troubles()):
            if time.monotonic() > end:
                raise ConfigError("; ".join(found))
            self._entities.take_waiting()
            time.sleep(0.02)

    # What the network answers

    def _take_answers(self) -> None:
        while self._thread.answers:
            answer = self._thread.answers.popleft()
            if isinstance(answer, Scores):
                self._publish_scores(answer)
            elif answer.error is not None:
                self.apply(self.runtime.failed(answer.error))
            else:
                self._act(answer)

    def _act(self, answer: InferenceResult) -> None:
        assert answer.decided is not None
        assert answer.decision is not None
        if answer.request.number == self._requested and self.runtime.state is RunState.running:
            self._outputs.explain(answer.decided, answer.decision)
        self.apply(self.runtime.decided(answer.decided))

    # Scores of candidate actions

    def _score(self, message: JointTrajectory) -> None:
        try:
            names = self.deployment.policy.action_spec.names
            actions = messages.candidates(message, names, MAX_CANDIDATES)
            running = self.runtime.state is RunState.running and self._outputs.newest_ns
            self._thread.score(ScoreRequest(tag=message, actions=actions, seen=None if running else self.runtime.look()))
        except QTransformerError as error:
            self._node.get_logger().warning(f"refused to score: {error}", throttle_duration_sec=1.0)

    def _publish_scores(self, answer: Scores) -> None:
        request = answer.request
        if answer.scores is None:
            self._node.get_logger().warning(f"refused to score: {answer.error}", throttle_duration_sec=1.0)
            return
        self._outputs.publish_scores(request, answer.scores, answer.stamp_ns)

    # What it says of itself

    def describe(self) -> str:
        """State and reason, as `HOLD image_stale: ...`."""
        return f"{self.runtime.state.value} {self.runtime.reason}".strip()

    def status(self, name: str, refusal: str) -> DiagnosticStatus:
        d, now = self.deployment, self.runtime.snapshot()
        values: dict[str, Any] = {"state": now.state.value, "reason": now.reason}
        values |= {f"age_s {topic}": "never" if age is None else age for topic, age in now.ages_s.items()}
        values |= {"skew_s": now.skew_s, "inference_p50_ms": now.inference_p50_ms, "inference_p99_ms": now.inference_p99_ms}
        values |= {"inference_p99_ms at configure": d.p99_s * 1e3}
        values |= dict(sorted(now.counts.items()))
        values |= {f"clamped {limit}": count for limit, count in sorted(now.clamps.items())}
        values |= {f"{what} {topic}": count for topic, counts in now.topics.items() for what, count in sorted(counts.items())}
        values |= {"output": f"{d.commands.type} on {d.commands.topic}", "dry_run": self.dry_run, "lockstep": self.lockstep}
        values |= {"checkpoint": d.checkpoint, "sha256": d.sha256, "acting": d.acting}
        level = "error" if refusal or self.runtime.is_estopped else LEVELS[now.state]
        return messages.status_message(name, level, refusal or self.describe(), str(d.checkpoint), values)

    def _summary(self) -> str:
        d = self.deployment
        return (
            f"{d.checkpoint} (manifest sha256 {d.sha256}) on {d.policy.device}, a decision takes "
            f"{np.median(d.inference_s) * 1e3:.1f} ms "
            f"(p99 {d.p99_s * 1e3:.1f} ms) of {self._period_s * 1e3:.0f} ms; "
            f"acts by {d.acting}; "
            + ("dry run: commands nothing" if self.dry_run else f"commands {', '.join(self._outputs.kinds)}")
        )


def absolute(name: str, namespace: str) -> str:
    """A relative topic as ROS resolves it for a node in `namespace`, before remaps."""
    return name if name.startswith("/") else f"{namespace.rstrip('/')}/{name}"

"""`qtransformer-policy`: a lifecycle node through which a checkpoint acts. See ros_bridge/README.md for its face.

The node moves messages and time between ROS and the pure parts: `deployment` (what is loaded), `runtime` (what is decided),
`commands` and `messages` (what is sent), `inference` (the network's thread).
"""

import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32MultiArray
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.policy import PolicyDecision
from qtransformer_ros import common_node as common
from qtransformer_ros import messages
from qtransformer_ros.commands import Output
from qtransformer_ros.deployment import Deployment, Wanted, deploy
from qtransformer_ros.inference import Answer, InferenceThread, ScoreRequest, Scores
from qtransformer_ros.motion import Command, JointMotion, PoseMotion, TwistMotion
from qtransformer_ros.runtime import BelowMinValue, Decided, Effects, PolicyRuntime, RunState, RuntimeSettings
from qtransformer_ros.safety import JointRange, OutOfBounds, SafetyLimits, limited_joints
from qtransformer_ros.urdf import read_urdf

TOPIC_JOINTS, TOPIC_POSE, TOPIC_ESTOP, TOPIC_ENABLED = "joint_states", "ee_pose", "estop", "motion_enabled"
JOIN_S = 2.0
"""How long the network may take to finish when the node ends [s]."""
MAX_CANDIDATES = 1024
LATCHED_OR_NOT = (common.EVERY, common.LATCHED)
"""To hear what a latching publisher said before, and a publisher that does not latch: one subscription does not match both."""
LEVELS = {
    RunState.idle: "ok",
    RunState.running: "ok",
    RunState.paused: "warn",
    RunState.hold: "error",
    RunState.estop: "error",
    RunState.fault: "error",
}


class PolicyNode(LifecycleNode):
    """The lifecycle, the parameters, the services and the status; a `Session` exists from `configure` to `cleanup`."""

    def __init__(self) -> None:
        super().__init__("qtransformer_policy")
        self.settings = Parameters(self)
        self.session: Session | None = None
        self._refusal = ""
        """Why the last transition failed."""
        self._pressed = False
        """The e-stop: outlives sessions, and may be pressed before there is one."""
        self._status = self.create_publisher(DiagnosticStatus, "~/status", common.LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", common.EVERY)
        for qos in LATCHED_OR_NOT:
            self.create_subscription(Bool, TOPIC_ESTOP, self._hear_estop, qos)
        self.create_service(Trigger, "~/start", lambda _, r: self._serve(r, lambda s: s.runtime.start()))
        self.create_service(Trigger, "~/stop", lambda _, r: self._serve(r, lambda s: s.runtime.stop()))
        self.create_service(Trigger, "~/reset", lambda _, r: self._serve(r, lambda s: s.runtime.reset()))
        self.create_service(SetBool, "~/estop", self._serve_estop)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.publish_status()

    # Lifecycle. rclpy swallows what a transition raises, so it is caught, logged and shown here.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("activate", lambda: self._present().activate())

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", lambda: self._present().deactivate())

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("clean up", self._close)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that raised, whose reason stays in the status."""
        try:
            self._close()
        except Exception as error:
            self.get_logger().error("".join(traceback.format_exception(error)))
        self.publish_status()
        return TransitionCallbackReturn.SUCCESS

    def on_stop(self) -> None:
        """The last word before the process ends: a hold."""
        self._close()

    def on_callback_error(self, error: Exception) -> None:
        """A callback raised: a bug, or, on Jazzy, a transition that does not exist from here, which is nothing."""
        if self.session is not None and type(error).__name__ != "RCLError":
            self.session.apply(self.session.runtime.failed(error))

    def _transition(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        self._refusal = ""
        try:
            action()
        except QTransformerError as error:
            self._refuse(what, str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self._refuse(what, "".join(traceback.format_exception(error)))
            return TransitionCallbackReturn.ERROR
        finally:
            self.publish_status()
        return TransitionCallbackReturn.SUCCESS

    def _refuse(self, what: str, reason: str) -> None:
        self._refusal = f"cannot {what}: {reason}"
        self.get_logger().error(self._refusal)

    def _configure(self) -> None:
        self.session = Session(self, deploy(self.settings.wanted(self.get_namespace())))
        if self._pressed:
            self.session.apply(self.session.runtime.estop(True))

    def _present(self) -> "Session":
        assert self.session is not None, "rclpy allows this transition only after configure"
        return self.session

    def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()

    # Requests

    def _hear_estop(self, message: Bool) -> None:
        self._pressed = self._pressed or message.data
        if self.session is not None:
            self.session.apply(self.session.runtime.estop_heard(message.data))

    def _serve_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Pressed, it latches; released, it leads into PAUSED and no further."""
        if self.session is None:
            response.success, response.message = True, "latched" if request.data else "released"
        else:
            response = self._serve(response, lambda session: session.runtime.estop(request.data))
        if response.success:
            self._pressed = request.data
        return response

    def _serve(self, response: Any, event: Callable[["Session"], Effects]) -> Any:
        """Pass a request to the runtime; the answer is the state it leads to, or why it was not granted."""
        if self.session is None:
            response.success, response.message = False, "not configured"
            return response
        effects = event(self.session)
        self.session.apply(effects)
        response.success, response.message = not effects.refused, effects.refused or self.session.describe()
        return response

    # Parameters that may change. Annotations are quoted: Jazzy's `Parameter` takes no type argument.

    def _check_parameters(self, parameters: "list[Parameter[Any]]") -> SetParametersResult:
        changes = {p.name: p.value for p in parameters}
        if self.session is None or not changes.keys() & LIMITS:
            return SetParametersResult(successful=True)
        try:
            why = self.session.check_limits(self.settings.limits(self.session.limited_joints, **changes))
        except (ConfigError, ValueError) as error:
            why = str(error)
        return SetParametersResult(successful=not why, reason=why)

    def _take_parameters(self, parameters: "list[Parameter[Any]]") -> None:
        if self.session is not None and {p.name for p in parameters} & set(LIMITS):
            why = self.session.runtime.change_limits(self.settings.limits(self.session.limited_joints))
            self.get_logger().info(f"limits changed{': ' + why if why else ''}")

    # Status

    def publish_status(self) -> None:
        self._status.publish(self._describe())

    def _report(self) -> None:
        self._diagnostics.publish(messages.diagnostics_message(self._describe(), self.get_clock().now().nanoseconds))

    def _describe(self) -> DiagnosticStatus:
        name = self.get_fully_qualified_name()
        if self.session is None:
            text = self._refusal or "not configured"
            return messages.status_message(name, "error" if self._refusal else "stale", text, "", {"state": "UNCONFIGURED"})
        return self.session.status(name, self._refusal)


class Session:
    """A deployed policy on the wire, from `configure` to `cleanup`: its topics, its runtime, its thread."""

    def __init__(self, node: PolicyNode, deployment: Deployment) -> None:
        self.node, self.deployment = node, deployment
        self._commands = deployment.commands
        settings, contract = node.settings.runtime(deployment.contract.control_hz), deployment.contract
        self.dry_run, self.lockstep, self._period_s = settings.dry_run, settings.lockstep, settings.period_s
        self._repeat_s = 1.0 / node.settings.command_rate_hz.value
        self._frames = {"PoseStamped": node.settings.base_frame.value, "TwistStamped": node.settings.tool_frame.value}
        self.limited_joints = deployment.commands.joints
        limits = node.settings.limits(self.limited_joints)
        self._measuring = self._topics_of_measurements(limits)
        self.runtime = PolicyRuntime(
            contract,
            deployment.policy.action_spec,
            limits,
            settings,
            NodeClock(node),
            to_command=lambda action: self._commands(action, self.runtime.measured),
            joint_topic=self._measuring.get("JointState", ""),
            pose_topic=self._measuring.get("PoseStamped", ""),
            has_values=not deployment.policy.imitates,
        )
        self.active = False
        self._requested = -1
        """Number of the newest request."""
        self._newest_ns = 0
        """Newest stamp of the observation last decided on."""
        self._stream: deque[tuple[int, Any]] = deque()
        """(when [monotonic ns], message): what is still to be sent of the last motion."""
        self._entities = Entities(node)
        try:
            self._advertise()
            self._listen()
        except Exception:  # a topic's name, for instance
            self._entities.destroy()
            raise
        self._answered = node.create_guard_condition(self._take_answers)
        self._thread = InferenceThread(deployment.policy, self._answered.trigger)
        self._entities.timer(self._repeat_s, self._watch)
        self._pacing_camera = self._camera_that_paces(node.settings.tick_on.value)
        self._ticked_s = -math.inf
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
                self.node.get_logger().warning("the network still computes; its thread is left to itself")
            self.node.destroy_guard_condition(self._answered)
            self._entities.destroy()

    def apply(self, effects: Effects, *, last: bool = False) -> None:
        """Do what the runtime asks for; with `last`, wait until a hold has arrived."""
        if effects.reset_history or effects.hold:
            self._stream.clear()
            self._commands.last = None  # the network's thread forgets by the request's generation
        if effects.hold:
            self._hold(last)
        if effects.proposed is not None:
            self._commands.last = effects.proposed.motion
            self._proposed.publish(messages.proposed(effects.proposed.motion))
        if effects.command is not None:
            self._send(effects.command)
        if effects.request is not None:
            self._requested = effects.request.number
            self._thread.decide(effects.request)
        if effects.changed:
            self.node.get_logger().info(self.describe())
            self.node.publish_status()

    # What comes in

    def _listen(self) -> None:
        contract = self.deployment.contract
        # In lockstep nothing may be lost, for the robot waits; else nothing may queue.
        qos = common.IMAGE if self.lockstep else common.LATEST
        kinds = {source.topic: (source.type, qos) for source in contract.observed}
        kinds |= {topic: (kind, qos) for kind, topic in self._measuring.items() if topic not in kinds}
        for topic, (kind, quality) in kinds.items():
            self._entities.subscription(messages.MESSAGE_CLASSES[kind], topic, self._receiver(topic), quality)
        for latched in LATCHED_OR_NOT:
            if contract.instruction and (topic := contract.instruction.topic):
                self._entities.subscription(messages.MESSAGE_CLASSES["String"], topic, self._receiver(topic), latched)
            self._entities.subscription(Bool, TOPIC_ENABLED, lambda m: self.apply(self.runtime.enable_motion(m.data)), latched)
        self._entities.subscription(JointTrajectory, "~/score_candidates", self._score, common.EVERY)

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
        while self._stream and self._stream[0][0] <= time.monotonic_ns():
            self._outputs[self._motion_topic].publish(self._stream.popleft()[1])

    def _count_peers(self) -> None:
        """Who listens to our commands, and who else gives them."""
        if not self.dry_run:
            outputs = self._outputs.values()
            self.apply(self.runtime.listeners(min(p.get_subscription_count() for p in outputs)))
            self.apply(self.runtime.rivals(max(map(self._others, outputs))))

    def _others(self, publisher: Publisher) -> int:
        """How many others publish on its topic, by the name it has after remaps."""
        return max(0, self.node.count_publishers(publisher.topic_name) - 1)

    def check_limits(self, limits: SafetyLimits) -> str:
        """Why these limits cannot be taken now; "" if they can."""
        return self.runtime.refusal_of(limits)

    def _topics_of_measurements(self, limits: SafetyLimits) -> dict[str, str]:
        """Where holds and limits learn where the arm is, by type: the joints, and the tool where it matters."""
        names = {"JointState": TOPIC_JOINTS} if limits.joints else {}
        if self._commands.needs_pose or limits.has_workspace:
            names["PoseStamped"] = TOPIC_POSE
        return {kind: absolute(name, self.node.get_namespace()) for kind, name in names.items()}

    def _await_streams(self) -> None:
        """Until every stream is fresh. Nothing spins while a transition runs, so messages are taken by hand."""
        if self.lockstep:
            return  # the robot waits for us, and what it said is as old as it is patient
        end = time.monotonic() + self.node.settings.activation_timeout_s.value
        while why := self.runtime.complaint():
            if time.monotonic() > end:
                raise ConfigError(f"there is no fresh observation: {why}; is it published, and under that name?")
            self._entities.take_waiting()
            time.sleep(0.005)

    def _await_listeners(self) -> None:
        """Until the command topics have a subscriber and only one publisher, us."""
        end = time.monotonic() + self.node.settings.activation_timeout_s.value
        while found := list(self._trouble_of_outputs()):
            if time.monotonic() > end:
                raise ConfigError("; ".join(found))
            time.sleep(0.02)

    def _trouble_of_outputs(self) -> Iterator[str]:
        for topic, publisher in self._outputs.items():
            if others := self._others(publisher):
                yield f"{others} other publisher(s) command {topic}: an arm obeys one master; stop the other"
            if publisher.get_subscription_count() == 0:
                yield f"nobody listens to {topic}: start the controller, or remap the topic to its own"

    # What goes out

    def _advertise(self) -> None:
        commands, publisher = self.deployment.commands, self._entities.publisher
        kinds = {commands.topic: commands.type, **{switch.topic: switch.type for switch in commands.switches}}
        self._motion_topic, self._kinds = commands.topic, kinds
        self._outputs = {} if self.dry_run else {t: publisher(messages.MESSAGE_CLASSES[k], t) for t, k in kinds.items()}
        self._consumed = publisher(DiagnosticArray, "~/consumed")
        self._action = publisher(JointState, "~/action")
        self._proposed = publisher(JointTrajectory, "~/proposed_trajectory")
        self._q_values = publisher(Float32MultiArray, "~/q_values")
        self._distribution = publisher(Float32MultiArray, "~/value_distribution")
        self._scores = publisher(JointTrajectory, "~/candidate_scores")

    def _take_answers(self) -> None:
        while self._thread.answers:
            answer = self._thread.answers.popleft()
            if isinstance(answer, Scores):
                self._publish_scores(answer)
            elif answer.error is not None:
                self.apply(self.runtime.failed(answer.error))
            else:
                self._act(answer)

    def _act(self, answer: Answer) -> None:
        assert answer.decided is not None
        assert answer.decision is not None
        if answer.request.number == self._requested and self.runtime.state is RunState.running:
            self._explain(answer.decided, answer.decision)
        self.apply(self.runtime.decided(answer.decided))

    def _explain(self, decided: Decided, decision: PolicyDecision) -> None:
        """Publish what was decided, from which samples and by which values; before the command, so that a log reads in order."""
        stamps = decided.request.stamps
        self._newest_ns = max(stamps.values(), default=0)
        self._consumed.publish(messages.consumed_message(stamps, decided.request.observation, self._now_ns()))
        self._action.publish(messages.action_message(self.deployment.policy.action_spec.names, decided.action, self._newest_ns))
        for publisher, table, columns in (
            (self._q_values, decision.q_values, "bin"),
            (self._distribution, decision.value_probs, "value_bin"),
        ):
            if publisher.get_subscription_count():
                publisher.publish(messages.table_message(table, "dimension", columns))

    def _send(self, command: Command) -> None:
        """Publish a command: switches, then the motion, of which a stream is sent as it falls due."""
        for topic, numbers in command.switches.items():
            self._outputs[topic].publish(messages.switch_message(self._kinds[topic], numbers))
        kind, start_ns = self._kinds[self._motion_topic], time.monotonic_ns()
        # In lockstep a command belongs to the instant that was seen, and is said once.
        stamp_ns = self._newest_ns if self.lockstep else self._now_ns()
        repeat_s = self._period_s if self.lockstep else self._repeat_s
        self._stream.clear()
        for due_s, message in messages.motion_messages(
            command.motion, kind, stamp_ns, self._frames.get(kind, ""), repeat_s, self._period_s
        ):
            self._stream.append((start_ns + round(due_s * 1e9), message))
        self._outputs[self._motion_topic].publish(self._stream.popleft()[1])

    def _hold(self, last: bool) -> None:
        """Command the measured pose once, and nothing more."""
        motion = self._holding()
        if motion is None:
            self.node.get_logger().error("cannot hold: where the arm is was never measured; its controller must stop by itself")
            return
        self._proposed.publish(messages.proposed(motion))
        kind = self._kinds[self._motion_topic]
        message = next(messages.motion_messages(motion, kind, self._now_ns(), self._frames.get(kind, ""), 1.0, 1.0))[1]
        publisher = self._outputs[self._motion_topic]
        if last:
            common.publish_last(publisher, message)
        else:
            publisher.publish(message)

    def _holding(self) -> JointMotion | TwistMotion | PoseMotion | None:
        """What keeps the arm where it is; None if that is not known."""
        commands, measured = self._commands, self.runtime.measured
        if commands.type in ("TwistStamped", "Twist"):
            return TwistMotion(linear=np.zeros(3), angular=np.zeros(3))
        if commands.type == "PoseStamped":
            if measured.position is None or measured.orientation is None:
                return None
            return PoseMotion(position=measured.position, orientation=measured.orientation)
        if not set(commands.joints) <= set(measured.joints):
            return None
        positions = np.array([[measured.joints[joint] for joint in commands.joints]])
        return JointMotion(joints=commands.joints, positions=positions, times_s=(self.node.settings.hold_time_s.value,))

    # Scores of candidate actions

    def _score(self, message: JointTrajectory) -> None:
        try:
            names = self.deployment.policy.action_spec.names
            actions = messages.candidates(message, names, MAX_CANDIDATES)
            running = self.runtime.state is RunState.running and self._newest_ns
            seen = None if running else self.runtime.look()
            stamp_ns = self._newest_ns if seen is None else max(seen.stamps.values(), default=0)
            observation = None if seen is None else seen.observation
            self._thread.score(ScoreRequest(tag=message, actions=actions, observation=observation, stamp_ns=stamp_ns))
        except QTransformerError as error:
            self.node.get_logger().warning(f"refused to score: {error}", throttle_duration_sec=1.0)

    def _publish_scores(self, answer: Scores) -> None:
        request = answer.request
        if answer.scores is None:
            self.node.get_logger().warning(f"refused to score: {answer.error}", throttle_duration_sec=1.0)
            return
        names = self.deployment.policy.action_spec.names
        self._scores.publish(messages.scored(request.tag, names, request.actions, answer.scores, request.stamp_ns))

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
        values |= {"checkpoint": d.checkpoint, "sha256": d.sha256}
        level = "error" if refusal else LEVELS[now.state]
        return messages.status_message(name, level, refusal or self.describe(), str(d.checkpoint), values)

    def _summary(self) -> str:
        d = self.deployment
        return (
            f"{d.checkpoint} (manifest sha256 {d.sha256}) on {d.policy.device}, a decision takes "
            f"{np.median(d.inference_s) * 1e3:.1f} ms "
            f"(p99 {d.p99_s * 1e3:.1f} ms) of {self._period_s * 1e3:.0f} ms; "
            + ("dry run: commands nothing" if self.dry_run else f"commands {', '.join(self._kinds)}")
        )

    def _now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds


class NodeClock:
    """The runtime's two clocks."""

    def __init__(self, node: PolicyNode) -> None:
        self._node = node

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def ros_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds


class Entities:
    """What a session puts on the wire, to be taken off together."""

    def __init__(self, node: PolicyNode) -> None:
        self._node = node
        self._publishers: list[Publisher] = []
        self._subscriptions: list[Subscription] = []
        self._timers: list[Timer] = []

    def publisher(self, kind: Any, topic: str) -> Publisher:
        self._publishers.append(self._node.create_publisher(kind, topic, common.EVERY))
        return self._publishers[-1]

    def subscription(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def timer(self, period_s: float, callback: Callable[[], None]) -> None:
        # Steady: a watchdog must not stop because ROS time does.
        self._timers.append(self._node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME)))

    def take_waiting(self) -> None:
        """Hand out what has arrived, the clock and the e-stop too, while the executor is not ours to spin."""
        for subscription in self._node.subscriptions:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, False)
            if taken is not None:
                subscription.callback(taken[0])  # pyright: ignore[reportCallIssue]

    def destroy(self) -> None:
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)


class Parameters:
    """Every parameter of the node, declared; see ros_bridge/README.md for the table."""

    def __init__(self, node: LifecycleNode) -> None:
        fixed: dict[str, Any] = {"read_only": True}
        self.checkpoint = common.text(node, "checkpoint", "", "run or checkpoint directory; taken up by `configure`")
        self.tick_on = common.text(
            node,
            "tick_on",
            "timer",
            "when to decide: every control period, or on the first camera's image that comes a period after the last, at once",
            choices=("timer", "image"),
            **fixed,
        )
        self.contract = common.text(node, "contract", "", "topic contract (YAML); taken up by `configure`")
        self.output = common.text(
            node, "output", Output.joint_trajectory.value, "what the arm takes", choices=[o.value for o in Output], **fixed
        )
        self.device = common.text(node, "device", "auto", "auto, cpu, cuda or cuda:<n>", **fixed)
        self.torch_threads = common.integer(node, "torch_threads", 1, "cores for the network", low=1, high=256, **fixed)
        self.command_rate_hz = common.number(
            node,
            "command_rate_hz",
            50.0,
            "points of a trajectory, streamed commands and watchdogs [Hz]",
            low=1.0,
            high=1000.0,
            **fixed,
        )
        self.allow_slow = common.flag(node, "allow_slow", False, "take a policy slower than its own rate", **fixed)
        self.base_frame = common.text(node, "base_frame", "base_link", "frame of poses", **fixed)
        self.tool_frame = common.text(node, "tool_frame", "tool", "frame of velocities; the URDF's link of the tool", **fixed)
        self.urdf = common.text(node, "urdf", "", "model of the arm, for Cartesian actions as joint positions", **fixed)
        self.activation_timeout_s = common.number(
            node,
            "activation_timeout_s",
            5.0,
            "how long `activate` waits for streams and listeners [s]",
            low=0.0,
            high=60.0,
            **fixed,
        )
        self.joint_limit_margin_rad = common.number(
            node, "joint_limit_margin_rad", 0.05, "kept from the joints' limits [rad]", low=0.0, high=3.0
        )
        self.max_joint_velocity_scale = common.number(
            node, "max_joint_velocity_scale", 1.0, "share of the joints' speed limits", low=1e-3, high=1.0
        )
        self.max_joint_accel = common.number(
            node, "max_joint_accel", 0.0, "of a joint [rad/s^2]; 0: not limited", low=0.0, high=1e4
        )
        self.max_step_m = common.number(node, "max_step_m", 0.05, "way of the tool in a control period [m]", low=1e-6, high=10.0)
        self.max_step_rad = common.number(
            node, "max_step_rad", 0.2, "turn of a joint or of the tool in a control period [rad]", low=1e-6, high=10.0
        )
        self.workspace_min_m = common.numbers(node, "workspace_min_m", [], "lower corner of the tool's box [m]; empty: none")
        self.workspace_max_m = common.numbers(node, "workspace_max_m", [], "upper corner of the tool's box [m]; empty: none")
        self.out_of_bounds = common.text(
            node,
            "out_of_bounds",
            OutOfBounds.clamp.value,
            "what a motion out of bounds ends in",
            choices=[o.value for o in OutOfBounds],
        )
        self.joint_names = common.texts(node, "joint_names", [], "joints of inverse kinematics, and of the limits below", **fixed)
        self.joint_min_rad = common.numbers(node, "joint_min_rad", [], "one per joint [rad]", **fixed)
        self.joint_max_rad = common.numbers(node, "joint_max_rad", [], "one per joint [rad]", **fixed)
        self.joint_max_rad_s = common.numbers(node, "joint_max_rad_s", [], "one per joint [rad/s]", **fixed)

        self.hold_time_s = common.number(
            node, "hold_time_s", 0.3, "within which a hold is reached [s]", low=0.01, high=10.0, **fixed
        )
        self._declare_runtime(node)

    def _declare_runtime(self, node: LifecycleNode) -> None:
        """`RuntimeSettings`, field by field: their defaults are its defaults."""
        usual = RuntimeSettings(control_hz=1.0)
        self._runtime: dict[str, common.Setting[Any]] = {}
        for name, description in RUNTIME.items():
            default: Any = getattr(usual, name)
            declare: Any = (
                common.flag if isinstance(default, bool) else common.integer if isinstance(default, int) else common.number
            )
            self._runtime[name] = declare(node, name, default, description, read_only=True)
        words = [word.value for word in BelowMinValue]
        self._min_value = common.numbers(
            node, "min_value", [], "expected return below which an action is not taken; empty: none", read_only=True
        )
        self._below = common.text(node, "below_min_value", words[0], "what to do then; `ask` pauses", choices=words, read_only=True)

    def runtime(self, control_hz: float) -> RuntimeSettings:
        if len(self._min_value.value) > 1:
            raise ConfigError(f"min_value expected one number, or none, found {list(self._min_value.value)}")
        return RuntimeSettings(
            control_hz=control_hz,
            **{name: setting.value for name, setting in self._runtime.items()},
            min_value=next(iter(self._min_value.value), None),
            below_min_value=BelowMinValue(self._below.value),
        )

    def wanted(self, namespace: str) -> Wanted:
        """What to deploy."""
        return Wanted(
            checkpoint=Path(self.checkpoint.value),
            contract=Path(self.contract.value),
            namespace=namespace,
            output=Output(self.output.value),
            device=self.device.value,
            torch_threads=self.torch_threads.value,
            command_rate_hz=0.0 if self._runtime["lockstep"].value else self.command_rate_hz.value,  # one point per decision
            allow_slow=self.allow_slow.value,
            urdf=self.urdf.value,
            base_frame=self.base_frame.value,
            tool_frame=self.tool_frame.value,
            joints=self.joint_names.value,
        )

    def limits(self, joints: tuple[str, ...], **changes: Any) -> SafetyLimits:
        """As they are now, with parameters of `changes` instead. Raises ConfigError where they contradict each other."""

        def now(name: str) -> Any:
            setting = getattr(self, name)
            return setting.convert(changes[name]) if name in changes else setting.value

        ranges = read_urdf(self.urdf.value) if self.urdf.value else self._joint_ranges()
        if joints and not ranges:
            raise ConfigError(
                "joint motions need limits: give the arm's model (urdf:=<file>), or joint_names, joint_min_rad, joint_max_rad and "
                "joint_max_rad_s"
            )
        return SafetyLimits(
            joints=limited_joints(
                ranges, joints, margin_rad=now("joint_limit_margin_rad"), velocity_scale=now("max_joint_velocity_scale")
            ),
            max_joint_accel=now("max_joint_accel") or math.inf,
            max_step_m=now("max_step_m"),
            max_step_rad=now("max_step_rad"),
            workspace_min=now("workspace_min_m") or (-math.inf, -math.inf, -math.inf),
            workspace_max=now("workspace_max_m") or (math.inf, math.inf, math.inf),
            out_of_bounds=OutOfBounds(now("out_of_bounds")),
        )

    def _joint_ranges(self) -> dict[str, JointRange]:
        columns = [getattr(self, name).value for name in ("joint_names", "joint_min_rad", "joint_max_rad", "joint_max_rad_s")]
        if len({len(column) for column in columns}) != 1:
            raise ConfigError("joint_names, joint_min_rad, joint_max_rad and joint_max_rad_s expected equally many entries")
        return {name: JointRange(low=low, high=high, velocity=v) for name, low, high, v in zip(*columns, strict=True)}


LIMITS = (
    "joint_limit_margin_rad", "max_joint_velocity_scale", "max_joint_accel", "max_step_m", "max_step_rad",
    "workspace_min_m", "workspace_max_m", "out_of_bounds",
)  # fmt: skip
"""Parameters of which SafetyLimits are made: they may change while the node is configured, but not loosen while it runs."""


RUNTIME = {
    "image_timeout_s": "age from which a camera is stale [s]",
    "joint_timeout_s": "the same for everything else that is measured [s]",
    "max_sync_skew_s": "largest difference of stamps within an observation [s]",
    "inference_timeout_s": "age from which an answer is too old [s]; 0: one and a half control periods",
    "max_consecutive_misses": "late or unmatched decisions in a row that make a hold",
    "max_consecutive_rejections": "unusable messages of a topic in a row that make a hold",
    "start_paused": "wait for ~/start after activation",
    "auto_resume": "end a hold in RUNNING rather than PAUSED; for simulators",
    "fresh_frames_to_resume": "samples of every topic before a hold counts as passed",
    "dry_run": "decide and propose; publish nothing on command topics",
    "lockstep": "one decision per observation of a robot that waits for it",
    "require_stamps": "refuse messages without a stamp",
    "max_identical_images": "equal images in a row from which a camera counts as frozen; 0: never",
    "estop_timeout_s": "silence of the e-stop topic that counts as pressed [s]; 0: it need not be heard",
    "max_episode_s": "running time after which the policy pauses [s]; 0: none",
}
"""Parameters of which RuntimeSettings are made: fixed for the life of the node."""


def absolute(name: str, namespace: str) -> str:
    """A relative topic as ROS resolves it for a node in `namespace`, before remaps."""
    return name if name.startswith("/") else f"{namespace.rstrip('/')}/{name}"


def main(args: list[str] | None = None) -> int:
    """Entry point of `qtransformer-policy`. Returns the exit code."""
    return common.run(PolicyNode, args)


if __name__ == "__main__":
    raise SystemExit(main())

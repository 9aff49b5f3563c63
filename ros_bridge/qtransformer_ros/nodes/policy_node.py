"""`qtransformer-policy`: a lifecycle node through which a checkpoint acts. See ros_bridge/README.md for its face.

The nodes of the policy move messages and time between ROS and the pure parts: `deployment` (what is loaded), `runtime` (what is
decided), `commands` and `messages` (what is sent), `inference` (the network's thread).
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_ros.control.effects import Effects
from qtransformer_ros.control.estop import STILL_PRESSED
from qtransformer_ros.nodes import messages
from qtransformer_ros.nodes.parameters import declared
from qtransformer_ros.nodes.policy_parameters import LIMITS, PolicyParameters
from qtransformer_ros.nodes.policy_session import PolicySession
from qtransformer_ros.nodes.qos import ANY_PUBLISHER, EVERY, HEARD_BY_ANOTHER, LATCHED
from qtransformer_ros.nodes.running import run
from qtransformer_ros.policy.deployment import deploy

TOPIC_ESTOP = "estop"


class PolicyNode(LifecycleNode):
    """The lifecycle, the parameters, the services and the status; a `PolicySession` exists from `configure` to `cleanup`."""

    def __init__(self) -> None:
        super().__init__("qtransformer_policy")
        self.settings = declared(self, PolicyParameters)
        self.session: PolicySession | None = None
        self._refusal = ""
        """Why the last transition failed."""
        self._latched = self._pressed = False
        """The e-stop, and the last word of its topic: both outlive sessions, and may come before there is one."""
        self._status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVERY)
        for qos in ANY_PUBLISHER:
            self.create_subscription(Bool, TOPIC_ESTOP, self._hear_estop, qos, event_callbacks=HEARD_BY_ANOTHER)
        self.create_service(Trigger, "~/start", lambda _, r: self._serve(r, lambda s: s.runtime.start()))
        self.create_service(Trigger, "~/stop", lambda _, r: self._serve(r, lambda s: s.runtime.stop()))
        self.create_service(Trigger, "~/reset", lambda _, r: self._serve(r, lambda s: s.runtime.reset()))
        self.create_service(SetBool, "~/estop", self._serve_estop)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.publish_status()
        name = self.get_fully_qualified_name()
        self.get_logger().info(f"unconfigured: does nothing before `configure` (ros2 lifecycle set {name} configure)")

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
        if self.session is not None and not _is_refused_transition(error):
            self.session.apply(self.session.runtime.broke(error))

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
        deployment = deploy(self.settings.deployment(self.get_namespace()))
        self.session = PolicySession(self, self.settings, deployment, self.publish_status)
        if self._pressed:
            self.session.apply(self.session.runtime.estop_heard(True))
        elif self._latched:
            self.session.apply(self.session.runtime.estop(True))

    def _present(self) -> PolicySession:
        assert self.session is not None, "rclpy allows this transition only after configure"
        return self.session

    def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._latched = self._latched or session.runtime.is_estopped
            session.close()

    # Requests

    def _hear_estop(self, message: Bool) -> None:
        self._pressed = message.data
        self._latched = self._latched or message.data
        if self.session is not None:
            self.session.apply(self.session.runtime.estop_heard(message.data))

    def _serve_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Pressed, it latches; released, it leads into PAUSED and no further."""
        if self.session is not None:
            response = self._serve(response, lambda session: session.runtime.estop(request.data))
        elif self._pressed and not request.data:
            response.success, response.message = False, f"cannot unlatch: {STILL_PRESSED}"
        else:
            response.success, response.message = True, "latched" if request.data else "released"
        if response.success:
            self._latched = request.data
        return response

    def _serve(self, response: Any, event: Callable[[PolicySession], Effects]) -> Any:
        """Pass a request to the runtime; the answer is the state it leads to, or why it was not granted."""
        if self.session is None:
            response.success, response.message = False, "not configured: `configure` and `activate` it first (its lifecycle)"
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
            why = self.session.check_limits(self.session.limits(**changes))
        except (ConfigError, ValueError) as error:
            why = str(error)
        return SetParametersResult(successful=not why, reason=why)

    def _take_parameters(self, parameters: "list[Parameter[Any]]") -> None:
        if self.session is not None and {p.name for p in parameters} & set(LIMITS):
            why = self.session.runtime.change_limits(self.session.limits())
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


def _is_refused_transition(error: Exception) -> bool:
    """Whether rclpy's own lifecycle raised it: publishing raises the same type, and is no small matter."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ == "RCLError" and bool(frames) and "lifecycle" in Path(frames[-1].filename).parts


def main(args: list[str] | None = None) -> int:
    """Entry point of `qtransformer-policy`. Returns the exit code."""
    return run(PolicyNode, args, PolicyParameters)


if __name__ == "__main__":
    raise SystemExit(main())

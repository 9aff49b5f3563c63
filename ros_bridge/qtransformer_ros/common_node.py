"""What every node of ours shares: how it starts, spins and stops, how it declares parameters, and its qualities of service.

def main(args: list[str] | None = None) -> int:
    return run(PolicyNode, args, Parameters)
"""

import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import rclpy
import rclpy.utilities
from builtin_interfaces.msg import Time as TimeMessage
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from qtransformer.errors import QTransformerError
from qtransformer_ros.parameter_names import check_names, check_places, help_line

T = TypeVar("T")


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

UNHEARD = "unheard"
"""Key in the recorder's status: topics of its contract that no publisher is connected on, so that what is sent there is lost."""

SPIN_S = 0.1
"""How long a signal may wait for a node that has nothing to do [s]."""
REPEAT_S = 5.0
"""A failure that repeats is logged this often [s]."""
FLUSH_S = 0.5
"""How long a last message may take to be acknowledged [s]."""


class Stoppable(Protocol):
    """A node, plain or lifecycle, that says its last word itself."""

    def on_stop(self) -> None:
        """Called once before the end, while publishing still works: send the hold, end threads, close files."""
        ...


def run(make_node: Callable[[], Any], args: list[str] | None = None, declare: Callable[[Any], Any] = lambda node: None) -> int:
    """Initialise ROS, make the node (`Stoppable`), spin it until SIGINT or SIGTERM, stop it. Returns the exit code.

    With --help nothing is initialised: the parameters that `declare` declares are printed.

    rclpy's own signal handlers would invalidate the context before the last message is out; ours only set a flag, and stay
    installed to the end, for `ros2 launch` sends SIGINT twice. An exception of a callback is logged, and the node lives on;
    where it has a method `on_callback_error(error)`, that is told.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if not any(name in os.environ for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR")):
        os.environ["ROS_LOG_DIR"] = tempfile.gettempdir()  # containers: rclpy refuses to start where it cannot log
    arguments = sys.argv if args is None else args
    if others := rclpy.utilities.remove_ros_args(arguments)[1:]:
        return _explain(make_node, declare, others)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _live(make_node, stop, arguments)
    finally:
        rclpy.try_shutdown()


def _explain(make_node: Callable[[], Any], declare: Callable[[Any], Any], found: Sequence[str]) -> int:
    """Print the help, or why the program takes no such words."""
    if found[0] not in ("-h", "--help"):
        print(f"expected parameters as --ros-args -p NAME:=VALUE, found {' '.join(found)}; --help lists them", file=sys.stderr)
        return 2
    listing = _Listing()
    declare(listing)
    about = (sys.modules[make_node.__module__].__doc__ or "").split("\n\n")[0].strip()
    print("\n".join([about, "", "Parameters (--ros-args -p NAME:=VALUE, or --ros-args --params-file FILE):", *listing.lines]))
    return 0


class _Listing:
    """What declarations take for a node when nothing else is made of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add_on_set_parameters_callback(self, check: Callable[..., Any]) -> None:
        """No value is set here."""

    def declare_parameter(self, name: str, default: Any, descriptor: ParameterDescriptor) -> None:
        self.lines.append(help_line(name, default, descriptor.description, descriptor.additional_constraints))


def _live(make_node: Callable[[], Any], stop: threading.Event, arguments: Sequence[str]) -> int:
    try:
        node = make_node()
    except (QTransformerError, InvalidParameterValueException) as error:
        get_logger("qtransformer").fatal(str(error))  # one sentence that says what mends it
        return 1
    try:
        check_places(node.get_fully_qualified_name(), arguments)
    except QTransformerError as error:
        node.get_logger().fatal(str(error))
        node.on_stop()
        node.destroy_node()
        return 1
    # Other executors of rclpy lose messages (several threads) or deliver none (events) in the releases we run on.
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        spin(executor, node, stop.is_set)
    finally:
        try:
            node.on_stop()
        finally:
            executor.shutdown()
            node.destroy_node()
    return 0


def spin(executor: SingleThreadedExecutor, node: Any, stopped: Callable[[], bool]) -> None:
    """Call back until `stopped()`, whatever the callbacks raise; on Jazzy even a refused lifecycle transition raises."""
    logged: dict[tuple[str, int | None], float] = {}
    while not stopped():
        try:
            executor.spin_once(timeout_sec=SPIN_S)
        except ExternalShutdownException:
            return
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = (place.filename, place.lineno)
            if time.monotonic() - logged.get(key, -math.inf) >= REPEAT_S:
                logged[key] = time.monotonic()
                node.get_logger().error("a callback failed\n" + "".join(traceback.format_exception(error)))
            if hasattr(node, "on_callback_error"):  # `on_error` is a lifecycle node's own
                node.on_callback_error(error)


def publish_last(publisher: Publisher, message: Any) -> None:
    """Publish, and wait until every reliable subscriber has it (at most `FLUSH_S`): for a node that is about to end."""
    publisher.publish(message)
    publisher.wait_for_all_acked(Duration(seconds=FLUSH_S))


def time_message(ns: int) -> TimeMessage:
    """Nanoseconds of ROS time as a stamp."""
    return TimeMessage(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def declared(node: Node, declare: Callable[[Node], T]) -> T:
    """Declare all parameters of a node, before anything is made of them. Returns what `declare` does.

    Raises:
        ConfigError: the node was given one that it does not have.
    """
    settings = declare(node)
    given = node._parameter_overrides  # rclpy has no other word for what a node was given
    check_names(node.get_fully_qualified_name(), given, node.get_parameters_by_prefix(""))
    return settings


class Setting(Generic[T]):
    """A declared parameter. `value` is what it is now: parameters can be set while the node runs, unless read-only."""

    def __init__(self, node: Node, name: str, convert: Callable[[Any], T]) -> None:
        self.node, self.name, self.convert = node, name, convert

    @property
    def value(self) -> T:
        return self.convert(self.node.get_parameter(self.name).value)


def number(
    node: Node,
    name: str,
    default: float,
    description: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    read_only: bool = False,
) -> Setting[float]:
    """Declare a finite number within [low, high]; an integer will do. The description gives its unit, as `[s]`."""

    def convert(value: Any) -> float:
        return _bounded(float(_typed(value, (int, float), "a number")), low, high)

    return _declare(node, name, float(default), description, convert, read_only, low, high)


def integer(
    node: Node, name: str, default: int, description: str, *, low: int = -(2**63), high: int = 2**63 - 1, read_only: bool = False
) -> Setting[int]:
    """Declare a whole number within [low, high]; 3.0 will do."""

    def convert(value: Any) -> int:
        value = _typed(value, (int, float), "a whole number")
        if value != np.floor(value):
            raise ValueError(f"expected a whole number, found {value}")
        return int(_bounded(value, low, high))

    return _declare(node, name, default, description, convert, read_only)


def flag(node: Node, name: str, default: bool, description: str, *, read_only: bool = False) -> Setting[bool]:
    """Declare a truth value."""

    def convert(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, found {value!r}")
        return value

    return _declare(node, name, default, description, convert, read_only)


def text(
    node: Node, name: str, default: str, description: str, *, choices: Sequence[str] = (), read_only: bool = False
) -> Setting[str]:
    """Declare a text, one of `choices` if any are given."""

    def convert(value: Any) -> str:
        value = _typed(value, (str,), "a text")
        if choices and value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, found '{value}'")
        return value

    return _declare(node, name, default, description, convert, read_only, choices=choices)


def numbers(
    node: Node,
    name: str,
    default: Sequence[float],
    description: str,
    *,
    length: int | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    read_only: bool = False,
) -> Setting[tuple[float, ...]]:
    """Declare a list of finite numbers within [low, high], `length` of them if given; integers will do."""

    def convert(value: Any) -> tuple[float, ...]:
        found = tuple(_bounded(float(_typed(v, (int, float), "numbers")), low, high) for v in _listed(value))
        if length is not None and len(found) != length:
            raise ValueError(f"expected {length} numbers, found {len(found)}")
        return found

    return _declare(node, name, [float(v) for v in default], description, convert, read_only)


def texts(node: Node, name: str, default: Sequence[str], description: str, *, read_only: bool = False) -> Setting[tuple[str, ...]]:
    """Declare a list of texts."""

    def convert(value: Any) -> tuple[str, ...]:
        return tuple(_typed(v, (str,), "texts") for v in _listed(value))

    return _declare(node, name, list(default), description, convert, read_only)


def _declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    convert: Callable[[Any], T],
    read_only: bool,
    low: float = -np.inf,
    high: float = np.inf,
    choices: Sequence[str] = (),
) -> Setting[T]:
    """Values are checked here rather than by rclpy: at declaration it takes no int for a double, and ends the node."""

    def check(parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == name:
                try:
                    convert(parameter.value)
                except (ValueError, OverflowError) as error:
                    return SetParametersResult(successful=False, reason=f"{name}: {error}")
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)  # before the declaration: what the command line gives is checked, too
    descriptor = ParameterDescriptor(description=description, read_only=read_only, dynamic_typing=True)
    descriptor.additional_constraints = f"one of {', '.join(filter(None, choices))}" if choices else ""
    if np.isfinite([low, high]).all():
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    node.declare_parameter(name, default, descriptor)
    return Setting(node, name, convert)


def _typed(value: Any, types: tuple[type, ...], what: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, types):
        raise ValueError(f"expected {what}, found {value!r}")
    return value


def _listed(value: Any) -> list[Any]:
    """Elements of a list parameter; an empty one arrives from rclpy as an array of bytes."""
    if value is None or isinstance(value, str) or not hasattr(value, "__len__"):
        raise ValueError(f"expected a list, found {value!r}")
    return list(value)


def _bounded(value: Any, low: float, high: float) -> Any:
    if not np.isfinite(value) or not low <= value <= high:
        raise ValueError(f"expected a finite number from {low:g} to {high:g}, found {value}")
    return value

"""How every program of ours starts, spins and stops, and answers --help.

def main(args: list[str] | None = None) -> int:
    return run(PolicyNode, args, PolicyParameters)
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
from typing import Any

import rclpy
import rclpy.utilities
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions

from qtransformer.errors import QTransformerError
from qtransformer_ros.nodes.parameter_names import check_places, help_line

SPIN_S = 0.1
"""How long a signal may wait for a node that has nothing to do [s]."""
REPEAT_S = 5.0
"""A failure that repeats is logged this often [s]."""
FLUSH_S = 0.5
"""How long a last message may take to be acknowledged [s]."""


def run(make_node: Callable[[], Any], args: list[str] | None = None, declare: Callable[[Any], Any] = lambda node: None) -> int:
    """Initialise ROS, make the node, spin it until SIGINT, SIGTERM or SIGHUP, stop it. Returns the exit code.

    `on_stop()` of the node, plain or lifecycle, is called once before the end, while publishing still works: send the hold, end
    threads, close files. With --help nothing is initialised: the parameters that `declare` declares are printed.

    rclpy's own signal handlers would invalidate the context before the last message is out; ours only set a flag, and stay
    installed to the end, for `ros2 launch` sends SIGINT twice. An exception of a callback is logged, and the node lives on;
    where it has a method `on_callback_error(error)`, that is told.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has a terminal's end ignored
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

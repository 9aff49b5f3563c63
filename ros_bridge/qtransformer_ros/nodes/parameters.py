"""How a node declares its parameters: typed, bounded, described, and checked whenever one is set."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from qtransformer_ros.nodes.parameter_names import check_names

T = TypeVar("T")


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

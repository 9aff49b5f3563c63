"""The parameters of a node by name: whether it has those that it was given, which ROS would drop in silence, and what help says."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest

QOS = "qos_overrides."
"""Parameters of this prefix rclpy declares itself, and only with the topic that they are of."""
OF_ROS = frozenset({"use_sim_time", "start_type_description_service"})
"""Declared by rclpy in every node: taken, but no names to suggest."""
TYPES = {bool: "bool", int: "int", float: "double", str: "string", list: "list"}
"""As the README's tables name them."""


def check_names(node: str, given: Collection[str], declared: Collection[str]) -> None:
    """A node acts on all that it is told, or not at all.

    Raises:
        ConfigError: names every parameter that the node does not have, each with the nearest that it has.
    """
    known = sorted(set(declared) - OF_ROS)
    unknown = [name for name in sorted(given) if name not in declared and not name.startswith(QOS)]
    if unknown:
        told = "; ".join(f"no parameter '{name}' ({suggest(name, known, otherwise='no similar name')})" for name in unknown)
        raise ConfigError(f"{node} has {told}. Correct the name, or leave it out; --help lists the parameters")


def check_places(node: str, arguments: Sequence[str]) -> None:
    """Nothing on the command line is for nodes of other names only: ROS would not apply it to this one, whose full name is given.

    Raises:
        ConfigError: a file of parameters has none for this node, or `-p OTHER:name:=value` is for another.
    """
    for option, value in pairwise(arguments):
        if option == "--params-file":
            named = sorted(_nodes(yaml.safe_load(Path(value).read_text(encoding="utf-8")) or {}))
            _check_place(node, value, named)
        elif option in ("-p", "--param") and ":" in (name := value.partition(":=")[0]):
            _check_place(node, f"-p {value}", ["/" + name.rpartition(":")[0].lstrip("/")])


def help_line(name: str, default: Any, description: str, choices: str = "") -> str:
    """A parameter in a line: name, type, default, and what it is."""
    shown = str(default).lower() if isinstance(default, bool) else default if default not in ("", []) else "empty"
    return f"  {name} ({TYPES[type(default)]}, {shown}): {description}{f' ({choices})' if choices else ''}"


def _check_place(node: str, given: str, named: Sequence[str]) -> None:
    # `/**` is any number of names, none too. `*` here reaches over slashes, further than ROS's own: what applies is never refused.
    if not any(fnmatchcase(node, pattern.replace("/**", "*")) for pattern in named):
        raise ConfigError(
            f"{given}: nothing in it is for {node}: expected '{node}:' or '/**:' above the parameters, found "
            f"{', '.join(named) or 'no node'}. Correct the node's name, with its namespace, or leave it out"
        )


def _nodes(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Full names of the nodes, or patterns of them, for which a file has parameters; namespaces may be keys of their own."""
    for key, value in tree.items():
        name = f"{above}/{str(key).strip('/')}"
        if isinstance(value, Mapping):
            yield from [name] if "ros__parameters" in value else _nodes(value, name)

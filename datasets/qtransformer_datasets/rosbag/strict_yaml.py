"""A YAML file into dataclasses, strictly: no tag builds an object, nothing is interpolated, no key is overlooked."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest

MAX_BYTES = 1 << 20


def read_yaml(path: Path) -> Any:
    """Plain dictionaries, lists, text and numbers."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: expected at most {MAX_BYTES} bytes of YAML, found {path.stat().st_size}; check the path")
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected plain YAML without tags or repeated keys; {' '.join(str(error).split())}") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML itself lets the last of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"'{repeated[0]}' stands here twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse(kind: Any, data: Any, where: str) -> Any:
    """`data` as the annotated type `kind`. One value may stand for a tuple of one; nothing else is converted.

    A union of dataclasses is decided by the first required key of each. Raises ConfigError, starting with `where`.
    """
    if is_dataclass(kind):
        return _record(kind, data, where)
    if isinstance(kind, UnionType):
        return _one_of(get_args(kind), data, where)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), data, where)
    if get_origin(kind) is not None:  # Mapping[str, X]
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected names with their settings, found {_shown(data)}")
        return {_text(name, where): parse(get_args(kind)[1], value, f"{where}.{name}") for name, value in data.items()}
    if issubclass(kind, Enum):
        return _choice(kind, data, where)
    if kind is float and type(data) is int and abs(data) < 1 << 63:
        return float(data)
    if type(data) is not kind:
        raise ConfigError(f"{where}: expected {_WORDS[kind]}, found {_shown(data)}")
    return data


_WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}


def _record(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected settings ({', '.join(f.name for f in fields(kind))}), found {_shown(data)}")
    hints = get_type_hints(kind)
    for key in data:
        if _text(key, where) not in hints:
            raise ConfigError(f"{where}: has no setting '{key[:80]}'; {suggest(key, list(hints))}")
    missing = [name for name in _required(kind) if name not in data]
    if missing:
        raise ConfigError(f"{where}: expected {', '.join(missing)}, found none; add it")
    values = {name: parse(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _one_of(kinds: Sequence[Any], data: Any, where: str) -> Any:
    if NoneType in kinds:
        return None if data is None else parse(next(k for k in kinds if k is not NoneType), data, where)
    first = {_required(kind)[0]: kind for kind in kinds}
    found = [kind for key, kind in first.items() if isinstance(data, Mapping) and key in data]
    if len(found) != 1:
        raise ConfigError(f"{where}: expected exactly one of {', '.join(first)}, found {_shown(data)}")
    return parse(found[0], data, where)


def _tuple(kinds: Sequence[Any], data: Any, where: str) -> tuple[Any, ...]:
    items = data if isinstance(data, list) else [data]
    if kinds[-1] is Ellipsis:
        return tuple(parse(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if len(items) != len(kinds):
        raise ConfigError(f"{where}: expected {len(kinds)} values, found {_shown(data)}")
    return tuple(parse(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True)))


def _choice(kind: type[Enum], data: Any, where: str) -> Enum:
    names = [choice.value for choice in kind]
    if data not in names:
        raise ConfigError(f"{where}: expected one of {', '.join(names)}, found {_shown(data)}")
    return kind(data)


def _required(kind: Any) -> list[str]:
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def _text(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where}: expected text as a key, found {_shown(key)}; put it in quotes")
    return key


def _shown(value: Any) -> str:
    """Never the content of a container: aliases can make a small file endless."""
    if isinstance(value, dict | list):
        return f"{type(value).__name__} of {len(value)}"
    return "nothing" if value is None else repr(value)[:80]

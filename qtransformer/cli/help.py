"""Help texts, read from the settings themselves: fields, defaults, and the line under each field."""

import ast
import inspect
import itertools
import textwrap
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_type_hints

import qtransformer
from qtransformer.cli.compose import GROUPS, SCHEMAS, group_choices

WIDTH = 124
GROUP_LINES = {
    "preset": "A whole configuration to start from; `small` is what is listed below.",
    "value": "The value head, by name.",
}

Entry = tuple[str, str, str]
"""Name, default, and what it means."""


def overview(beginning: str = "") -> str:
    """`qtransformer --help`, of verbs that begin so."""
    verbs = [f"  {verb:15}{_first_sentence(schema)}" for verb, schema in SCHEMAS.items() if verb.startswith(beginning)]
    return "\n".join(
        [
            f"qtransformer {qtransformer.__version__}: turn logged robot data into a grasping policy and run it on an arm",
            "",
            "usage: qtransformer VERB [key=value ...]",
            "",
            *verbs,
            "",
            "`qtransformer VERB --help` lists the settings of a verb; `qtransformer --version` prints the version.",
        ]
    )


def verb_help(verb: str) -> str:
    """`qtransformer VERB --help`."""
    entries = [(group, "|".join(group_choices(group)), GROUP_LINES[group]) for group in GROUPS.get(verb, ())]
    entries += _entries(SCHEMAS[verb])
    width = max(len(f"{name}={value}") for name, value, _ in entries) + 4
    lines = [_line(name, value, text, width) for name, value, text in entries]
    return "\n".join([f"usage: qtransformer {verb} [key=value ...]", "", _doc(SCHEMAS[verb]), "", *lines])


def _entries(schema: Any, prefix: str = "") -> list[Entry]:
    """A schema's own settings first, then those of its parts, each set off by an empty entry."""
    hints, docs, plain, nested = get_type_hints(schema), field_docs(schema), [], []
    for item in _own_first(schema):
        kind = hints[item.name]
        if is_dataclass(kind):
            nested += [("", "", ""), *_entries(kind, f"{prefix}{item.name}.")]
        else:
            plain.append((prefix + item.name, _default(item), docs.get(item.name, "") + _choices(kind)))
    return plain + nested


def _own_first(schema: Any) -> list[Any]:
    """Fields a schema adds (dataset, run) before those it inherits."""
    own = schema.__annotations__
    return sorted(fields(schema), key=lambda item: item.name not in own)


@cache
def field_docs(schema: Any) -> dict[str, str]:
    """The line under each field, inherited ones included."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__[:-1]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in itertools.pairwise(definition.body):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                docs[ast.unparse(statement.target)] = " ".join(ast.literal_eval(following.value).split())
    return docs


def _line(name: str, value: str, text: str, width: int) -> str:
    head = f"  {name}={value}" if name else ""
    return textwrap.fill(text, WIDTH, initial_indent=head.ljust(width), subsequent_indent=" " * width)


def _default(item: Any) -> str:
    value = item.default if item.default is not NO_DEFAULT else item.default_factory()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(value)}]"
    return "null" if value is None else "..." if value == "???" else str(value)


def _choices(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f" ({' | '.join(str(member.value) for member in kind)})"
    return ""


def _doc(schema: Any) -> str:
    return " ".join((schema.__doc__ or "").split())


def _first_sentence(schema: Any) -> str:
    return _doc(schema).split(". ")[0].rstrip(".")

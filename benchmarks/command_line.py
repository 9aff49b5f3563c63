"""The command line of a benchmark: `key=value` words become arguments of its main, as everywhere in this project.

Standard library only: peers are measured by the same file in environments that have nothing of ours.
"""

import sys
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any


def run(main: Callable[..., int | None], words: Sequence[str] | None = None) -> int:
    """Call `main` with what the words say, each as the type of the default it replaces; `--help` prints the module's description.

    Returns:
        The exit code: main's, or 2 for words that name no argument or are no such number.
    """
    words = sys.argv[1:] if words is None else words
    if {"-h", "--help"} & set(words):
        print(sys.modules[main.__module__].__doc__)
        return 0
    defaults = {name: parameter.default for name, parameter in signature(main).parameters.items()}
    try:
        arguments = dict(_argument(word, defaults) for word in words)
    except ValueError as error:
        print(f"{main.__code__.co_filename}: {error}", file=sys.stderr)
        return 2
    return main(**arguments) or 0


def _argument(word: str, defaults: dict[str, Any]) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    if name not in defaults or "=" not in word:
        known = " ".join(f"{name}={default}" for name, default in defaults.items())
        raise ValueError(f"expected key=value of {known}, found {word!r}; --help says what they mean")
    kind = type(defaults[name])
    try:
        return name, kind(value)
    except ValueError:
        raise ValueError(f"{name}={value}: expected {kind.__name__}, as in {name}={defaults[name]}") from None

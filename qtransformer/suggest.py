"""What to say where a name is mistyped."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean ...?`; where nothing is near, `otherwise`, by default the names themselves.

    Of a dotted name, the part after the last dot may be near alone: `lr` of `optim.lr`.
    """
    names = list(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    near = near or [name for name in names if get_close_matches(_last(word), [_last(name)], cutoff=0.75)]
    return f"did you mean {near[0]}?" if near else otherwise or f"expected one of {', '.join(names)}"


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]

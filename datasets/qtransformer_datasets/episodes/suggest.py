"""What a mistyped name was probably meant to be."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like it; None where none is near."""
    return next(iter(get_close_matches(word, list(known), n=1)), None)


def suggest(word: str, known: Sequence[str]) -> str:
    """`did you mean ...?`, or all known names where none is near."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else f"there are: {', '.join(known) or 'none'}"

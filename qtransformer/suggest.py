"""What a mistyped name was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches

ALSO_CALLED = {
    "alpha": "conservative_weight",
    "batch_size": "batch_segments",
    "epochs": "steps",
    "gamma": "discount",
    "grad_clip": "clip_norm",
    "lr": "learning_rate",
    "max_grad_norm": "clip_norm",
    "n_step": "time_steps",
    "num_atoms": "num_bins",
    "tau": "target_rate",
    "wd": "weight_decay",
}
"""Settings by the names that papers and other codebases have for them, which no spelling is near to."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like it; None where none is near.

    Of a dotted name, the part after the last dot may be near alone: `lr` of `optim.lr`.
    """
    names = list(known)
    near = [name for name in names if _last(name) == ALSO_CALLED.get(_last(word))]
    near = near or get_close_matches(word, names, n=1, cutoff=0.6)
    near = near or [name for name in names if get_close_matches(_last(word), [_last(name)], cutoff=0.75)]
    return near[0] if near else None


def suggest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean ...?`; where nothing is near, `otherwise`, by default all known names."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean {near}?" if near else otherwise or f"there are: {', '.join(names) or 'none'}"


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]

"""What datasets leave unsaid, asked for all at once and as it is typed; and what they say themselves, which nobody says again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtransformer.errors import ConfigError, DatasetError

_QUESTIONS = {
    "control_hz": "its rate of control [Hz]",
    "dones": "whether `dones` means success (terminated) or a time limit (truncated)",
    "limits": "the finite limits of its actions",
}
_EXAMPLES = {"control_hz": "20", "dones": "terminated", "limits": "[[-1,1],[0,1]]"}


class UnsaidError(DatasetError):
    """A dataset that cannot be read until more is said of it."""

    def __init__(self, message: str, options: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.options = tuple(options)
        """Of the reader: those that say it."""


def ask_for(options: Sequence[str], path: Path, why: str = "") -> None:
    """Raise unless there is nothing to ask for. `why` tells what was found instead.

    Raises:
        UnsaidError: with all that is missing, for a verb of `data` and for a training.
    """
    if not options:
        return
    listed = ",".join(f"{name}:{_EXAMPLES[name]}" for name in options)
    typed = " ".join(f"{name}={_EXAMPLES[name]}" for name in options)
    raise UnsaidError(
        f"{path}: the dataset does not say {', nor '.join(_QUESTIONS[name] for name in options)}{f' ({why})' if why else ''}; "
        f"say so: dataset={{path:{path},{listed}}}, or for a verb of `data` {typed}",
        options,
    )


def check_rate(control_hz: Any, path: Path) -> None:
    """Raise at a rate of control that is none."""
    if isinstance(control_hz, bool) or not isinstance(control_hz, int | float) or not 0 < control_hz < float("inf"):
        raise ConfigError(f"{path}: control_hz expected a number above 0, found {control_hz!r}; say control_hz:20, for instance")


def refuse_said(name: str, value: Any, path: Path, told: str) -> None:
    """Raise: the option would be ignored, as the dataset itself says it."""
    raise DatasetError(
        f"{path}: {name}:{value} is for datasets that do not say {_QUESTIONS[name]}, and this one says {told}; leave it out"
    )

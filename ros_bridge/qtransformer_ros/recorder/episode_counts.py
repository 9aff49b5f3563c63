"""The outcomes of a demonstration: which seeds are done, how they ended, and how sure that makes us."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qtransformer.errors import ConfigError
from qtransformer.files import write_json
from qtransformer.intervals import wilson

FILE = "episodes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeOutcome:
    seed: int
    outcome: str
    """`success`, `failure` or `timeout`, as the contract's outcome says; `none` where nothing was said in time."""
    steps: int
    """Control steps."""
    seconds: float
    """Of real time, from the reset on."""
    bag: str = ""
    """Name of its bag, where one was recorded."""


class EpisodeCounts:
    """Outcomes by seed in a file that is complete after every episode."""

    def __init__(self, path: Path, outcomes: Iterable[EpisodeOutcome] = ()) -> None:
        self.path = path
        self.outcomes = {own.seed: own for own in outcomes}

    @classmethod
    def open(cls, path: Path) -> "EpisodeCounts":
        """Those of an earlier run, or none. Raises ConfigError for a file that is not ours, or cannot be written."""
        counts = cls(path)
        if path.exists():
            try:
                entries = json.loads(path.read_text(encoding="utf-8"))["episodes"]
                counts = cls(path, [EpisodeOutcome(**entry) for entry in entries])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}: expected the outcomes of earlier episodes ({error!r}); move the file away") from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        counts.save()
        return counts

    def left(self, seeds: Sequence[int]) -> list[int]:
        """Seeds not yet done; those that ended without a word are tried again."""
        return [seed for seed in seeds if seed not in self.outcomes or self.outcomes[seed].outcome == "none"]

    def add(self, outcome: EpisodeOutcome) -> None:
        """Keep it, on disk at once."""
        self.outcomes[outcome.seed] = outcome
        self.save()

    def save(self) -> None:
        write_json(self.path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        successes, count = self._tally()
        low, high = wilson(successes, count)
        summary = {"episodes": [asdict(self.outcomes[seed]) for seed in sorted(self.outcomes)], "count": count}
        return {**summary, "success": successes / count if count else 0.0, "low": low, "high": high}

    def text(self) -> str:
        """`success 0.80 [0.49, 0.94] over 10 episodes: 8 success, 1 failure, 1 timeout`"""
        successes, count = self._tally()
        low, high = wilson(successes, count)
        kinds = [own.outcome for own in self.outcomes.values()]
        tally = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds, key=_order)))
        return f"success {successes / max(1, count):.2f} [{low:.2f}, {high:.2f}] over {count} episodes" + (
            f": {tally}" if tally else ""
        )

    def _tally(self) -> tuple[int, int]:
        kinds = [own.outcome for own in self.outcomes.values()]
        return kinds.count("success"), len(kinds)


def _order(kind: str) -> int:
    known = ("success", "failure", "timeout")
    return known.index(kind) if kind in known else len(known)

"""Where a training goes on: all that its newest checkpoint says beside the weights."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from qtransformer import normalisation
from qtransformer.checkpoint import read_json, read_training_state
from qtransformer.errors import CheckpointError, SpecMismatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The numbers of `position.json`."""

    step: int
    """Gradient steps taken."""
    best_success: float | None
    """Highest validation success so far; None before the first, -1 in the file."""
    best_with: float | None
    """Validation success by which this checkpoint became the best; None where it did not."""
    batch_segments: int | None
    """Segments per batch; None in early checkpoints, which do not say."""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "best_success": -1.0 if self.best_success is None else self.best_success}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Position":
        best, success, segments = float(data["best_success"]), data.get("best_with"), data.get("batch_segments")
        return cls(
            step=int(data["step"]),
            best_success=None if best < 0 else best,
            best_with=None if success is None else float(success),
            batch_segments=None if segments is None else int(segments),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """A checkpoint to go on from."""

    directory: Path
    position: Position
    state: dict[str, Tensor]
    """Of the learner."""
    stats: dict[str, Any]
    """Statistics by which its network normalises."""
    dataset_fingerprint: str

    @classmethod
    def read(cls, directory: Path) -> "ResumePoint":
        """Read a checkpoint whose manifests hold.

        Raises:
            CheckpointError: it is not what training writes.
        """
        state, position = read_training_state(directory)
        stats, metadata = read_json(directory / "stats.json"), read_json(directory / "metadata.json")
        try:
            return cls(
                directory=directory,
                position=Position.from_dict(position),
                state=state,
                stats={key: list(stats[key]) for key in normalisation.KEYS},
                dataset_fingerprint=str(metadata["dataset_fingerprint"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{directory}: expected metadata.json, stats.json and training_state/position.json as training writes them, found "
                f"{error!r}; copy the checkpoint again, or delete it to resume from the one before"
            ) from error

    def refuse_other_data(self, fingerprint: str) -> None:
        if self.dataset_fingerprint != fingerprint:
            raise SpecMismatchError(
                f"{self.directory} was trained on another dataset (fingerprint {self.dataset_fingerprint[:12]}, "
                f"found {fingerprint[:12]}); resume with the same data, or fine-tune with init={self.directory}"
            )

    def warn_of_other_order(self, batch_segments: int) -> None:
        """Say once what changes with other batches: batch k of b segments takes segments k * b to (k + 1) * b."""
        before = self.position.batch_segments
        if before is not None and before != batch_segments:
            told = "batches are left out" if batch_segments > before else "batches are drawn again"
            warnings.warn(
                f"{self.directory} was saved with optim.batch_segments={before} and goes on with {batch_segments}: the order of "
                f"samples changes and some {told}; resume with {before} to go on as if never stopped",
                stacklevel=2,
            )

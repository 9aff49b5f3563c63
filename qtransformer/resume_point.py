"""Where a training goes on: all that its newest checkpoint says beside the weights."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from qtransformer import normalisation
from qtransformer.checkpoint import read_json, read_training_state
from qtransformer.checks import check_specs
from qtransformer.config import TrainConfig, to_dict
from qtransformer.distrust import plausible_specs, refuse_strange_statistics
from qtransformer.errors import CheckpointError, ConfigError, SpecMismatchError
from qtransformer.types import ActionSpec, ObservationSpec

MAY_CHANGE = (
    *("steps", "log_every", "save_every", "keep_checkpoints", "eval_episodes"),
    *("device", "threads", "optim.precision", "data.cache", "data.memory_gb"),
    *("optim.learning_rate", "optim.warmup_steps", "optim.clip_norm", "optim.batch_segments"),
    *("init", "targets.surprise"),
)
"""Settings a run may go on with otherwise: how long it takes and what is told of it, where it is computed, how large its steps are
(`warn_of_other_order` tells of other batches), and what learning does not read: where the weights came from before there was a
checkpoint, and surprise, which acts. All others say what is learned, or from which draws, so that a setting that is new is kept."""

EVERY_VERSION_HAS = ("algo", "seed", "value", "model", "targets", "optim")
"""Settings that no checkpoint lacks; others came later."""


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
        if int(data["step"]) < 0:
            raise ValueError(f"step {data['step']}")
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
    settings: dict[str, Any]
    """Those of the training that it keeps, by their full names; early checkpoints lack those that came later."""
    action_spec: ActionSpec
    observation_spec: ObservationSpec

    @classmethod
    def read(cls, directory: Path) -> "ResumePoint":
        """Read a checkpoint whose manifests hold.

        Raises:
            CheckpointError: it is not what training writes.
        """
        state, position = read_training_state(directory)
        settings, spec = read_json(directory / "config.json"), read_json(directory / "spec.json")
        stats, metadata = read_json(directory / "stats.json"), read_json(directory / "metadata.json")
        try:
            action_spec, observation_spec = plausible_specs(spec)
            refuse_strange_statistics(stats, observation_spec)
            return cls(
                directory=directory,
                position=Position.from_dict(position),
                state=state,
                stats={key: list(stats[key]) for key in normalisation.KEYS},
                dataset_fingerprint=str(metadata["dataset_fingerprint"]),
                settings=_kept(settings),
                action_spec=action_spec,
                observation_spec=observation_spec,
            )
        except Exception as error:  # see `distrust`
            raise CheckpointError(
                f"{directory}: expected config.json, spec.json, metadata.json, stats.json and training_state/position.json as "
                f"training writes them, found {error!r}; copy the checkpoint again, or delete it to resume from the one before"
            ) from error

    def refuse_other_settings(self, config: TrainConfig) -> None:
        asked = dict(_flat(to_dict(config)))
        told = [
            f"{name} was {was}, is {asked[name]}"
            for name, was in self.settings.items()
            if name in asked  # one that exists no longer is read by nothing
            and asked[name] != was
            and not (name.startswith("value.") and asked[name] is None)  # left to the data, and was found in them
        ]
        if told:
            raise ConfigError(
                f"{self.directory} cannot be resumed with other settings: {'; '.join(told)}; resume with what it was, or "
                f"begin another run, from these weights with init={self.directory} where the network is the same"
            )

    def refuse_other_specs(self, action: ActionSpec, observation: ObservationSpec) -> None:
        check_specs(self.action_spec, self.observation_spec, action, observation, str(self.directory))

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


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a run keeps to its end.

    Raises:
        KeyError: one is missing that every version of a checkpoint has.
    """
    if missing := set(EVERY_VERSION_HAS).difference(settings):
        raise KeyError(", ".join(sorted(missing)))
    return {name: value for name, value in _flat(settings) if name not in MAY_CHANGE}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their full names: `model.num_heads`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

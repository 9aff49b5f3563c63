"""Cells: trainings that follow from nothing but their data, settings, seed and judgement, whichever study asks for them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtransformer.cli.compose import compose_settings
from qtransformer.cli.studies.grids import Arm, Data
from qtransformer.config import TrainConfig, from_dict, to_dict

OF_NO_CONSEQUENCE = ("device", "threads", "log_every", "save_every", "keep_checkpoints", "eval_episodes", "seed")
"""Settings that do not change what is learned, or are told apart otherwise."""
CHECKPOINTS = 5
"""Checkpoints, each with a validation, on the way of a training."""
VALIDATION_EPISODES = 40


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and its judgement."""

    data: Data
    overrides: tuple[str, ...]
    seed: int
    """Of the training and of its data."""
    split: str
    episodes: int
    """Scenes it is judged on."""
    first_scene: int

    @property
    def config(self) -> dict[str, Any]:
        """The whole training as composed from the overrides, less what is of no consequence."""
        composed = to_dict(_composed(self.overrides))
        return {key: value for key, value in composed.items() if key not in OF_NO_CONSEQUENCE}

    @property
    def steps(self) -> int:
        return int(self.config["steps"])

    @property
    def identity(self) -> str:
        """Short digest of all that the result follows from."""
        judged = {"split": self.split, "episodes": self.episodes, "first_scene": self.first_scene}
        told = {"recipe": self.data.recipe, "logged": self.data.episodes, "seed": self.seed, **judged, "train": self.config}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def data_name(self) -> str:
        return f"{self.data.recipe}_{self.data.episodes}_{self.seed}.hdf5"

    def collect_arguments(self, folder: Path, workers: int) -> list[str]:
        settings = {"recipe": self.data.recipe, "episodes": self.data.episodes, "seed": self.seed, "workers": workers}
        return [f"out={folder / self.data_name}", *(f"{key}={value}" for key, value in settings.items())]

    def train_arguments(self, folder: Path, device: str) -> list[str]:
        """Overrides of `qtransformer train`, without the run's directory."""
        watched = [f"save_every={max(1, self.steps // CHECKPOINTS)}", f"eval_episodes={VALIDATION_EPISODES}", "keep_checkpoints=1"]
        own = [f"seed={self.seed}", "threads=1", f"device={device}", *watched]
        return [f"dataset={folder / self.data_name}", *self.overrides, *own]


def _composed(overrides: Sequence[str]) -> TrainConfig:
    settings = compose_settings("train", [*overrides, "dataset=none", "run=none"])
    parts = to_dict(settings)
    return from_dict(TrainConfig, {key: value for key, value in parts.items() if key not in ("dataset", "run", "dry_run")})


def cells_of(arm: Arm, seeds: int, episodes: int, first_scene: int) -> Iterator[Cell]:
    """The cells of an arm, one a seed; `seeds` 0 takes as many as the study says."""
    for seed in range(seeds or arm.seeds):
        yield Cell(arm.data, arm.overrides, seed, arm.split, episodes, first_scene)

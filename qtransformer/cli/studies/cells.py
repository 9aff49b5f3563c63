"""Cells: one training and its judgement each, known by what their result follows from and not by the study that asks."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from qtransformer.cli.compose import compose_settings
from qtransformer.cli.studies.grids import Arm, Data
from qtransformer.config import TrainConfig, to_dict

WITHOUT_CONSEQUENCE = ("device", "threads", "log_every", "save_every", "keep_checkpoints", "eval_episodes", "seed")
"""Settings of a training that its result does not follow from; the seed is the cell's own."""
ADDED_LATER: Mapping[str, Any] = {"targets.bootstrap_proposals": None, "model.remember": "", "targets.surprise": 0.0}
"""Settings that came after the first committed results, and the value at which all is as before: there they
are left out of the identity, and cells that were run stay run."""
NOT_READ: Mapping[str, Mapping[str, Any]] = {
    "bc": {"targets.proposals": 4, "targets.bootstrap_proposals": None},
    "mc": {"targets.bootstrap_proposals": None},
}
"""Settings that an algorithm does not read, and what they count as there: a preset may change for the others' sake."""
VALIDATIONS = 5
"""Checkpoints on the way of a training, each validated."""
VALIDATION_EPISODES = 40
DATA_FOLDER, RUNS_FOLDER = "data/studies", "runs/studies"


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
    """Seed of the first of them."""

    @property
    def config(self) -> dict[str, Any]:
        """The whole training as composed from the overrides."""
        return json.loads(_composed(self.overrides))

    @property
    def steps(self) -> int:
        return int(self.config["steps"])

    @property
    def identity(self) -> str:
        """Short digest of all that the result follows from."""
        judged = {"split": self.split, "episodes": self.episodes, "first_scene": self.first_scene}
        return _digest(self._trained_from | judged)

    @property
    def run_name(self) -> str:
        """The same of the training alone: cells that differ in what they are judged on share it."""
        return _digest(self._trained_from)

    @property
    def _trained_from(self) -> dict[str, Any]:
        copied = copy.deepcopy(self.config)
        train = {key: value for key, value in copied.items() if key not in WITHOUT_CONSEQUENCE}
        for name, counted in NOT_READ.get(str(train["algo"]), {}).items():
            part, key = _place(train, name)
            part[key] = counted
        for name, neutral in ADDED_LATER.items():
            part, key = _place(train, name)
            if part[key] == neutral:
                del part[key]
        told = {"recipe": self.data.recipe, "logged": self.data.episodes, "seed": self.seed, "train": train}
        told |= {"collect": sorted(self.data.collect)} if self.data.collect else {}
        return told | ({"reading": sorted(self.data.reading)} if self.data.reading else {})

    @property
    def differences(self) -> str:
        """Settings of the training that are not the defaults; a preset's are spelled out, for presets change."""
        ours, default = flat(self.config), flat(to_dict(TrainConfig()))
        kept = [name for name in ours if name not in WITHOUT_CONSEQUENCE and ours[name] != default[name]]
        return " ".join(f"{name}={_said(ours[name])}" for name in kept)

    @property
    def data_file(self) -> str:
        """Name of its episodes' file."""
        return self.data.file(self.seed)

    def train_arguments(self, folder: Path, device: str) -> list[str]:
        """Arguments of `qtransformer train`, but for the run's directory. Presets are spelled out: they may change before a
        training begins, or before somebody repeats it."""
        path = str(folder / self.data_file)
        read = ",".join([f"path:'{path}'", *(word.replace("=", ":") for word in self.data.reading), f"noise_seed:{self.seed}"])
        watch = [f"save_every={-(-self.steps // VALIDATIONS)}", f"eval_episodes={VALIDATION_EPISODES}", "keep_checkpoints=1"]
        own = [f"seed={self.seed}", "threads=1", f"device={device}", f"log_every={self.config['log_every']}", *watch]
        return [f"dataset={f'{{{read}}}' if self.data.reading else path}", *self.differences.split(), *own]

    def __str__(self) -> str:
        return f"{self.identity} ({self.data}; {' '.join(self.overrides)}; seed {self.seed})"


def cells_of(arm: Arm, seeds: Sequence[int] | None, episodes: int, first_scene: int) -> Iterator[Cell]:
    """The cells of an arm, one a seed; None takes as many seeds as the arm says."""
    for seed in range(arm.seeds) if seeds is None else seeds:
        yield Cell(arm.data, arm.overrides, seed, arm.split, episodes, first_scene)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> str:
    settings = compose_settings("train", [*overrides, "dataset=none", "run=none"])
    return json.dumps(to_dict(TrainConfig(**{item.name: getattr(settings, item.name) for item in fields(TrainConfig)})))


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _place(config: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a setting of this dotted name, and its key there."""
    group, _, key = name.rpartition(".")
    return (config[group] if group else config), key


def _said(value: Any) -> str:
    """A setting's value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)

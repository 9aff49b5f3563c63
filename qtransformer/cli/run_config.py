"""`config.yaml` of a run: what a training was made of. Read strictly: nothing in the file chooses what is constructed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qtransformer.config import TrainConfig, from_dict, to_dict
from qtransformer.errors import ConfigError
from qtransformer.files import write_text
from qtransformer_datasets.data_source import DataSource

FILE = "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A training: its data and its settings."""

    datasets: list[DataSource]
    train: TrainConfig
    env: dict[str, Any] | None = None
    """Arguments of the simulator's environment the data came from; None for data from elsewhere."""

    @staticmethod
    def exists(run: Path) -> bool:
        return (run / FILE).exists() or (run / "checkpoints").exists()

    def save(self, run: Path) -> None:
        """Whole or not at all: nothing else tells how to go on with a killed run."""
        run.mkdir(parents=True, exist_ok=True)
        datasets = [source.to_value() for source in self.datasets]
        text = yaml.safe_dump({"dataset": datasets, "env": self.env, **to_dict(self.train)}, sort_keys=False, width=120)
        write_text(run / FILE, text)

    @classmethod
    def load(cls, run: Path) -> "RunConfig":
        """Raises ConfigError where the file is missing, is no YAML, or says anything a training does not have."""
        path = run / FILE
        try:
            data: Any = yaml.safe_load(path.read_text())  # no OmegaConf: `${...}` stays text
        except FileNotFoundError:
            raise ConfigError(f"{run} holds no run of `qtransformer train`: {path} is missing; check run=...") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: expected YAML ({' '.join(str(error).split())}); restore it") from error
        datasets = data.pop("dataset", None) if isinstance(data, dict) else None
        if not isinstance(datasets, list) or not datasets:
            raise ConfigError(f"{path}: expected `dataset` to be a list of datasets, found {datasets!r}; restore it")
        sources = [DataSource.parse(item, f"{path}: dataset") for item in datasets]
        env = data.pop("env", None)
        if env is not None and not isinstance(env, dict):
            raise ConfigError(f"{path}: expected `env` to be a mapping, found {env!r}; restore it")
        return cls(datasets=sources, env=env, train=from_dict(TrainConfig, data, str(path)))

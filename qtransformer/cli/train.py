"""`qtransformer train`: a fresh run."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from qtransformer.cli.compose import UsageError
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.settings import TrainSettings
from qtransformer.cli.training import build_trainer, fit, logged_env_kwargs
from qtransformer.config import TrainConfig
from qtransformer.errors import ConfigError


def run(settings: TrainSettings) -> int:
    directory = Path(settings.run)
    if RunConfig.exists(directory):
        raise ConfigError(
            f"{directory} holds a run already: `qtransformer resume run={directory}` goes on with it, "
            "another run=... starts a new one"
        )
    config = run_config(settings)
    trainer = build_trainer(config, directory)
    if settings.dry_run:
        print(f"would train {config.train.steps} steps into {directory}")
        return 0
    config.save(directory)
    return fit(trainer)


def run_config(settings: TrainSettings) -> RunConfig:
    """What the run will be rebuilt from: its data, their environment, and the part of the settings that the trainer knows."""
    datasets = _paths(settings.dataset)
    train = TrainConfig(**{item.name: getattr(settings, item.name) for item in fields(TrainConfig)})
    return RunConfig(datasets=datasets, env=logged_env_kwargs(datasets[0]), train=train)


def _paths(dataset: Any) -> list[str]:
    """`dataset` as a list of absolute paths, so that the run can be resumed from another folder."""
    listed = dataset if isinstance(dataset, list) else [dataset]
    if not listed or not all(isinstance(item, str) for item in listed):
        raise UsageError(f"dataset: expected a file or a list of files, found {dataset}")
    return [str(Path(item).absolute()) for item in listed]

"""`qtransformer train`: a fresh run."""

from dataclasses import fields, replace
from pathlib import Path

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.settings import TrainSettings
from qtransformer.cli.sources import listed_sources
from qtransformer.cli.training import build_trainer, fit, logged_env_kwargs
from qtransformer.config import TrainConfig
from qtransformer.run_guard import run_exists
from qtransformer.trainer import Trainer
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.protocols import LoggedEpisodes


def run(settings: TrainSettings) -> int:
    directory = Path(settings.run)
    if RunConfig.exists(directory):
        raise run_exists(directory)
    sources = listed_sources("dataset", settings.dataset)
    opened = [source.open() for source in sources]  # once: it may mean to read them whole
    config = _described(settings, sources, opened[0])
    trainer = build_trainer(config, opened, directory)
    if settings.dry_run:
        print(plan(config, trainer))
        return 0
    return fit(trainer, describe=lambda: config.save(directory))


def run_config(settings: TrainSettings) -> RunConfig:
    """What the run will be rebuilt from: its data, their environment, and the part of the settings that the trainer knows."""
    sources = listed_sources("dataset", settings.dataset)
    return _described(settings, sources, sources[0].open())


def _described(settings: TrainSettings, sources: list[DataSource], first: LoggedEpisodes) -> RunConfig:
    train = TrainConfig(**{item.name: getattr(settings, item.name) for item in fields(TrainConfig)})
    if train.init:  # absolute like the datasets; and the very checkpoint, for that run may find another best one
        train = replace(train, init=str(resolve_checkpoint(train.init).absolute()))
    return RunConfig(datasets=sources, env=logged_env_kwargs(first), train=train)


def plan(config: RunConfig, trainer: Trainer) -> str:
    """What `dry_run=true` shows."""
    action, observation = trainer.dataset.action_spec, trainer.dataset.observation_spec
    cameras = ", ".join(f"{name} {h} x {w}" for name, (h, w, _) in observation.cameras.items())
    lines = [f"dataset {source}" for source in config.datasets]
    lines.append(f"cameras {cameras or 'none'}; proprio {len(observation.proprio_names)} values; {observation.control_hz:g} Hz")
    lines.append(f"actions {', '.join(action.names)}")
    return "\n".join([*lines, f"would train {config.train.steps} steps into {trainer.directory}"])

"""What `train` and `resume` share: the trainer composed of its parts, and its orderly end."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from qtransformer.checkpoint import latest_resumable
from qtransformer.cli.factories import SIMULATOR, EnvFactory
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.tensorboard import TensorBoard
from qtransformer.config import Algo
from qtransformer.errors import ConfigError
from qtransformer.trainer import Trainer
from qtransformer.types import Env
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.formats import format_of, reader_options


def build_trainer(config: RunConfig, opened: list[LoggedEpisodes], run: Path) -> Trainer:
    """Data (`opened` are those of the configuration), environment, log and settings, put together; prints what was."""
    dataset = load_dataset(config, opened)
    trainer = Trainer(
        config.train,
        dataset,  # pyright: ignore[reportArgumentType]  # pyright takes no cached_property for a protocol's property
        run,
        eval_env=validation_env(config),
        sinks=[TensorBoard(run / "tensorboard", _resumed_step(run))],
    )
    parameters = sum(p.numel() for p in trainer.learner.network.parameters())
    stats = dataset.stats
    print(
        f"{run}: {config.train.algo.value}, {parameters / 1e6:.2f}M parameters on {trainer.device}; "
        f"{dataset.num_episodes} episodes, {dataset.num_steps} steps, success {stats.success_rate:.3f}",
        flush=True,
    )
    return trainer


def load_dataset(config: RunConfig, opened: list[LoggedEpisodes]) -> EpisodeDataset:
    """The episodes of all sources, with what training needs of them.

    Raises:
        ConfigError: nothing tells what is good; see `check_rewards`.
    """
    sources, data = config.datasets, config.train.data
    weighted = any(source.weight is not None for source in sources)
    dataset = EpisodeDataset(
        opened,
        discount=config.train.targets.discount,
        weights=[1.0 if source.weight is None else source.weight for source in sources] if weighted else None,
        cache=data.cache.value,
        memory_limit=int(data.memory_gb * 1e9) or None,
    )
    check_rewards(dataset, sources, opened, config.train.algo)
    return dataset


def check_rewards(dataset: EpisodeDataset, sources: Sequence[DataSource], opened: Sequence[LoggedEpisodes], algo: Algo) -> None:
    """Refuse to learn values from data without a single reward, and from successes of a source that has none: beside rewarded data
    they would count as failures. What `step_reward` adds to every step alike is no reward here."""
    if algo is Algo.bc:
        return
    frames = dataset.frames()
    steps = [frames.has_action & (frames.source_id == number) for number in range(len(sources))]
    bare = [i for i, source in enumerate(sources) if (frames.rewards[steps[i]] == np.float32(source.step_reward)).all()]
    winning = [i for i in bare if frames.success[steps[i]].any()]
    if len(bare) == len(sources):
        first = (winning or bare)[0]
        raise ConfigError(
            f"{', '.join(source.path for source in sources)}: no step carries a reward, so there are no values to learn"
            f"{_how_to_reward(sources[first], opened[first], bool(winning))}"
        )
    if winning:
        raise ConfigError(
            f"{', '.join(sources[i].path for i in winning)}: holds successes, but no step carries a reward, so beside the other "
            f"data they would count as failures; clone with algo=bc, or derive rewards: "
            f"{sources[winning[0]].typed(rewards='success')} makes every success worth 1 at its end"
        )


def _how_to_reward(source: DataSource, episodes: LoggedEpisodes, succeeds: bool) -> str:
    """What makes a reward of what is known of success; that a failure is called a success is nobody's remedy. Cloning imitates
    successes alone, so where none is marked it takes the same."""
    if succeeds:
        return f"; make every success worth 1 at its end: dataset={source.typed(rewards='success')}; or clone successes: algo=bc"
    relabel = f"qtransformer data relabel {source.path}{source.typed_options()} out=NEW labels=FILE.csv rewards=success"
    if any(map(episodes.says_success, range(len(episodes)))):
        return f"; the data say of no episode that it succeeded: add some that did, or, where the log is wrong, mend it: {relabel}"
    marked = f", and no episode is marked as a success: label them in a file: {relabel}"
    if "success" in reader_options(format_of(source.path, source.format)):
        typed = source.typed(success=[0, 3], rewards="success")
        marked = (
            f", and no episode is marked as a success: say which succeeded, by their numbers: dataset={typed} (success:true only "
            f"if all did), or in a file: {relabel}"
        )
    return f"{marked}. Then algo=bc can clone them, too"


def fit(trainer: Trainer, resume: bool = False, describe: Callable[[], object] = lambda: None) -> int:
    """Train (see `Trainer.fit`); an end asked for by a signal is told apart by the shell's usual exit codes (143, 130)."""
    began, before = perf_counter(), _resumed_step(trainer.directory)
    with arrived_signals() as last:
        run = trainer.fit(resume, describe)
        number = last()
    if run.stopped:
        print(f"stopped after step {run.step}, saved; go on with: qtransformer resume run={run.directory}", flush=True)
        return 128 + number
    if run.step == before:
        print(f"{run.directory}: was trained to step {run.step} already; train init={run.directory} run=... goes on from there")
    else:
        took = f"trained to step {run.step} in {perf_counter() - began:.0f} s"
        print(f"{run.directory}: {took}; its curves: qtransformer report run={run.directory}", flush=True)
    return 0


def validation_env(config: RunConfig) -> Env | None:
    """The environment of the data with validation objects, where checkpoints are chosen by it."""
    if not config.train.eval_episodes or config.env is None:
        return None
    return EnvFactory(SIMULATOR, {**config.env, "split": "validation"})()


def logged_env_kwargs(episodes: LoggedEpisodes) -> dict[str, Any] | None:
    """Arguments of the simulator's environment the episodes were logged in, with the cameras as they are seen here.

    None where another environment made them, where nothing says with which arguments (several files were merged, say), or where
    cameras go by names that the simulator does not know.
    """
    if episodes.attributes.get("env_name") != SIMULATOR or episodes.attributes.get("env_kwargs") is None:
        return None
    kwargs = dict(episodes.attributes["env_kwargs"])
    seen = {name: [height, width] for name, (height, width, _) in episodes.observation_spec.cameras.items()}
    return {**kwargs, "cameras": seen} if seen.keys() <= dict(kwargs.get("cameras") or seen).keys() else None


def _resumed_step(run: Path) -> int:
    checkpoint = latest_resumable(run)
    return int(checkpoint.name.removeprefix("step_")) if checkpoint else 0


@contextmanager
def arrived_signals() -> Iterator[Callable[[], int]]:
    """Tells which signal came last; the trainer's own handlers stay in charge of it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)

    def last() -> int:
        try:
            return os.read(reader, 4096)[-1]
        except BlockingIOError:
            return 0

    try:
        yield last
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)

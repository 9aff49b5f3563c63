"""The training loop and its clock; the mathematics is the learner's."""

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from qtransformer.batch import Batch
from qtransformer.best_checkpoint import BestCheckpoint
from qtransformer.checkpoint import (
    Artefact,
    build_network,
    latest_resumable,
    load_weights,
    prune_checkpoints,
    read_checkpoint,
    remove_unfinished,
    resolve_checkpoint,
    set_latest,
    versions,
    write_checkpoint,
)
from qtransformer.checks import (
    check_specs,
    mirrored_dims,
    refuse_initial_beyond_the_range,
    refuse_nothing_to_imitate,
    refuse_several_processes,
    refuse_shifts_beyond_the_image,
    warn_of_coarse_bins,
    warn_of_no_surprise,
)
from qtransformer.config import Algo, TrainConfig, ValueConfig, to_dict
from qtransformer.distrust import distrusted
from qtransformer.errors import ConfigError, QTransformerError, SpecMismatchError
from qtransformer.files import write_json
from qtransformer.learner import QLearner
from qtransformer.memory import Memory
from qtransformer.metrics import JsonLines, Meter
from qtransformer.models.q_transformer import QTransformer
from qtransformer.normalisation import kept_normalisation
from qtransformer.policy import Policy, pick_device
from qtransformer.resume_point import Position, ResumePoint
from qtransformer.run_guard import Stop, exclusive, graceful_stop, run_exists
from qtransformer.types import ActionSpec, Env, Episode, Observation, ObservationSpec
from qtransformer.value_heads.support import accepts, find_support, resolved

LogSink = Callable[[int, Mapping[str, float]], None]
"""Called with (step, averages) whenever a line is logged."""

MAX_SKIPPED = 3
"""Updates in a row that may be not finite before training stops."""


class TrainingData(Protocol):
    """What training needs of a dataset; `qtransformer_datasets.EpisodeDataset` is one."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec

    @property
    def fingerprint(self) -> str: ...

    @property
    def discount(self) -> float: ...

    @property
    def stats(self) -> Any:
        """A dataclass of numbers and arrays, with `proprio_mean` and `proprio_std` of shape (p,), `action_min` and `action_max` of
        shape (n,), `success_rate`, and what `find_support` reads."""
        ...

    def episodes(self) -> Iterator[Episode]: ...

    def segments(
        self,
        *,
        batch_size: int,
        lead: int,
        steps: int,
        lookahead: int,
        seed: int,
        start: int = 0,
        filter: str = "all",
        balance: str = "none",
        memory: Memory | None = None,
    ) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class Run:
    """A training's directory."""

    directory: Path
    step: int
    """Gradient steps taken."""
    stopped: bool = False
    """Ended early by SIGINT or SIGTERM, after saving: `qtransformer resume` goes on."""

    @property
    def best(self) -> Path:
        """The best checkpoint as it is now: by validation, else the latest."""
        return resolve_checkpoint(self.directory)


class Trainer:
    """Trains a Q-Transformer on logged data, saving as it goes.

    Args:
        config: all settings.
        dataset: where segments come from.
        run: directory of the run; made if missing.
        eval_env: environment with validation objects, used to choose the best checkpoint if `config.eval_episodes > 0`.
        sinks: further listeners to the log (TensorBoard, say); metrics.jsonl is always written.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: TrainingData,
        run: str | Path = "runs/default",
        eval_env: Env | None = None,
        sinks: Sequence[LogSink] = (),
        progress: bool = True,
    ) -> None:
        if config.eval_episodes and eval_env is None:
            raise ConfigError(f"eval_episodes={config.eval_episodes} needs an eval_env to evaluate in; set eval_episodes=0")
        if dataset.discount != config.targets.discount:
            raise ConfigError(
                f"the dataset's returns are discounted by {dataset.discount}, the targets by {config.targets.discount}; "
                "use dataset.with_discount(targets.discount)"
            )
        refuse_several_processes()
        refuse_initial_beyond_the_range(config.value)
        refuse_nothing_to_imitate(config, float(dataset.stats.success_rate))
        refuse_shifts_beyond_the_image(config.optim.max_shift, dataset.observation_spec)
        warn_of_no_surprise(config, dataset.stats)
        warn_of_coarse_bins(config.model.action_bins, dataset.action_spec, dataset.stats)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.dataset, self.directory = config, dataset, Path(run)
        self.eval_env, self.sinks, self.progress = eval_env, list(sinks), progress
        self.device = pick_device(config.device)
        self.stats = {k: np.asarray(v).tolist() for k, v in asdict(dataset.stats).items()}
        self.support = find_support(config.value, dataset.stats, config.targets.discount)
        network = self._initial_network().to(self.device)
        mirrored = mirrored_dims(config.optim.mirror, dataset.action_spec, dataset.observation_spec)
        self.learner = QLearner(config, network, self.device, mirrored, self.support)
        ends = self.support.v_min, self.support.v_max
        if config.algo is not Algo.bc and ends != self.learner.range:  # fine-tuning, and returns lie beyond those learned before
            self.learner.cover(*ends, next(self._segments(0, "all")))
        reward = float(dataset.stats.going_on_reward_max)
        self.policy = Policy(network, config, dataset.action_spec, dataset.observation_spec, self.device, reward)
        self._golden = self._first_observation()
        self._best = BestCheckpoint(self.checkpoints, eval_env, self.policy, config.eval_episodes)

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def fit(self, resume: bool = False, describe: Callable[[], object] = lambda: None) -> Run:
        """Train to `config.steps`, or go on from the run's newest whole checkpoint. `describe` saves what else a fresh run is
        rebuilt from, once the directory is this process's own.

        Raises:
            ConfigError: the directory holds a run already (and `resume` is false), or another process trains in it.
            CheckpointError: the directory holds checkpoints that training cannot go on from.
            QTransformerError: the loss stopped being finite.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with exclusive(self.directory), graceful_stop() as stop:
            step = self._restore() if resume else self._begin(describe)
            log = JsonLines(self.directory / "metrics.jsonl", step)
            with self._bar(step) as bar:
                step = self._loop(step, stop, log, bar)
        return Run(self.directory, step, stopped=step < self.config.steps)

    def _bar(self, step: int) -> tqdm:
        """Progress for whoever watches; a file gets a line a minute, and none of a short training."""
        pause = 0.0 if sys.stderr.isatty() else 60.0
        name, total = f"train {self.config.algo.value}", self.config.steps
        return tqdm(
            desc=name, total=total, initial=step, unit="step", disable=not self.progress, delay=pause, mininterval=max(pause, 0.1)
        )

    def _loop(self, step: int, stop: Stop, log: JsonLines, bar: tqdm) -> int:
        config, meter, skipped = self.config, Meter(), 0
        batches = self._batches(step)
        since, logged, saved = perf_counter(), step, step
        self.learner.network.train()
        while step < config.steps and not stop.requested:
            began = perf_counter()
            batch = next(batches)
            waited = perf_counter() - began
            metrics = self.learner.update(batch, step)
            if metrics.seconds:  # timed
                metrics.seconds["data"] += waited
            meter.add(metrics)
            skipped = skipped + 1 if metrics.skipped else 0
            if skipped >= MAX_SKIPPED:
                raise QTransformerError(self._explain_not_finite(step, metrics.means))
            step += 1
            bar.update()
            if step % config.log_every == 0 or step == config.steps:
                values = meter.read()
                elapsed = perf_counter() - since
                transitions = config.optim.batch_segments * config.optim.segment_steps
                values["samples_per_second"] = (step - logged) * transitions / elapsed
                since, logged = perf_counter(), step
                self._log(step, values, log)
                shown = {k: f"{values[k]:.3g}" for k in ("loss", "q_start", "return_start") if k in values}
                bar.set_postfix(shown, refresh=False)
            if step % config.save_every == 0 or step == config.steps:
                began = perf_counter()
                self._save(step, log)
                saved = step
                since += perf_counter() - began
        if stop.requested and step > saved:
            self._save(step, log, validate=False)  # in a hurry, and resuming must choose the best as if never stopped
        return step

    def _batches(self, step: int) -> Iterator[Batch]:
        """The batch of gradient step `step` and of all that follow: first those to imitate, then those to learn values from."""
        config = self.config
        imitating = sum(config.clones_at(later) for later in range(step, config.steps))
        if imitating:
            yield from itertools.islice(self._segments(step, "success" if config.bc_filter_success else "all"), imitating)
        yield from self._segments(step + imitating, "all")

    def _segments(self, start: int, kept: str) -> Iterator[Batch]:
        optim = self.config.optim
        return self.dataset.segments(
            batch_size=optim.batch_segments,
            lead=self.learner.lead,
            steps=optim.segment_steps,
            lookahead=self.learner.lookahead,
            seed=self.config.seed,
            start=start,
            filter=kept,
            balance=self.config.data.balance.value,
            memory=self.learner.network.memory,
        )

    def _log(self, step: int, values: Mapping[str, float], log: JsonLines) -> None:
        log(step, values)
        for sink in list(self.sinks):
            try:
                sink(step, values)
            except Exception as error:  # a tracker without network must not end a training
                warnings.warn(f"{sink} failed at step {step} and is told nothing more: {error!r}", stacklevel=2)
                self.sinks.remove(sink)

    def _save(self, step: int, log: JsonLines, validate: bool = True) -> None:
        network = self.learner.network.eval()
        head = network.value_head
        artefact = Artefact(
            config=replace(self.config, value=replace(self._value, v_min=head.v_min, v_max=head.v_max)),
            action_spec=self.dataset.action_spec,
            observation_spec=self.dataset.observation_spec,
            stats=self.stats,
            network=network,
            metadata={"dataset_fingerprint": self.dataset.fingerprint, "algo": self.config.algo.value},
            golden=self.policy.golden_sample(self._golden),
        )
        success = self._validate(step, log) if validate else None
        is_best = self._best.is_chosen_by(success)
        position = Position(
            step=step,
            best_success=self._best.highest,
            best_with=success if is_best else None,
            batch_segments=self.config.optim.batch_segments,
        )
        checkpoint = write_checkpoint(self.checkpoints, step, artefact, self.learner.state_dict(), position.to_dict())
        if success is not None and is_best:
            self._best.choose(checkpoint, success)
        prune_checkpoints(self.checkpoints, self.config.keep_checkpoints, checkpoint)
        network.train()

    def _validate(self, step: int, log: JsonLines) -> float | None:
        """Success on validation objects; None where nothing is evaluated, or could not be: what was learned is saved anyway."""
        try:
            success = self._best.validate()
        except Exception as error:
            warnings.warn(f"validation at step {step} failed, and the checkpoint counts as not validated: {error!r}", stacklevel=2)
            return None
        if success is not None:
            self._log(step, {"validation_success": success}, log)
        return success

    def _begin(self, describe: Callable[[], object] = lambda: None) -> int:
        if latest_resumable(self.directory) is not None:
            raise run_exists(self.directory)
        next(self._batches(0))  # before there is a run: a mended command must not stumble over one that could not begin
        describe()  # first: with a folder of checkpoints, but no description, a killed run could be neither started nor resumed
        self.checkpoints.mkdir(exist_ok=True)
        write_json(self.directory / "config.json", to_dict(self.config))
        return 0

    def _restore(self) -> int:
        remove_unfinished(self.checkpoints)
        directory = latest_resumable(self.directory)
        if directory is None:
            return self._begin()  # killed before its first checkpoint: the same start again
        point = ResumePoint.read(directory)
        point.refuse_other_settings(self.config)
        point.refuse_other_specs(self.dataset.action_spec, self.dataset.observation_spec)
        point.refuse_other_data(self.dataset.fingerprint)
        point.warn_of_other_order(self.config.optim.batch_segments)
        load_weights(self.learner.network, directory)
        with distrusted(directory / "training_state", "state.safetensors"):
            self.learner.load_state_dict(point.state)
        self.stats = self._with_normalisation_of(point.stats, str(directory))
        self._best.restore(directory, point.position.best_success, point.position.best_with)
        set_latest(directory)  # in case that saving it was killed before that
        return point.position.step

    def _initial_network(self) -> QTransformer:
        data, init = self.dataset, self.config.init
        if not init:
            config = replace(self.config, value=self._value)
            return build_network(config, data.action_spec, data.observation_spec, self.stats)
        init = str(latest_resumable(self.directory) or init)  # what a run began from may be gone when it is resumed
        start = read_checkpoint(init, self.device)
        check_specs(start.action_spec, start.observation_spec, data.action_spec, data.observation_spec, init)
        if start.config.model != self.config.model or not accepts(self.config.value, start.config.value):
            told = [*_differences("model", start.config.model, self.config.model)]
            told += _differences("value", start.config.value, self.config.value)
            raise SpecMismatchError(f"{init} has another network: {'; '.join(told)}; use the checkpoint's settings")
        self.stats = self._with_normalisation_of(start.stats, init)
        self.support = self.support.including(start.network.value_head.v_min, start.network.value_head.v_max)
        return start.network

    @property
    def _value(self) -> ValueConfig:
        """The value head's settings with numbers in the place of what was left to the data."""
        return resolved(self.config.value, self.support, self.dataset.stats)

    def _with_normalisation_of(self, kept: Mapping[str, Any], where: str) -> dict[str, Any]:
        return kept_normalisation(self.dataset.observation_spec.proprio_names, kept, self.stats, where)

    def _first_observation(self) -> Observation:
        episode = next(iter(self.dataset.episodes()))
        return {
            "images": {name: images[0] for name, images in episode.images.items()},
            "proprio": episode.proprio[0],
            "instruction": episode.instruction,
        }

    def _explain_not_finite(self, step: int, means: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> str:
        report = {
            "step": step,
            "seed": self.config.seed,
            "losses": {k: float(v) for k, (v, _) in means.items()},
            **versions(),
        }
        path = self.directory / "not_finite.json"
        write_json(path, report)
        return (
            f"loss or gradient was not finite {MAX_SKIPPED} updates in a row, at step {step}; weights are as before them. "
            f"Batches are numbers {step - MAX_SKIPPED + 1} to {step} of seed {self.config.seed}; losses are in {path}. "
            "Lower optim.learning_rate, or inspect the data with `qtransformer data inspect`"
        )


def _differences(group: str, there: Any, asked: Any) -> Iterator[str]:
    """Settings of a group that a checkpoint has otherwise; what was left open (None) fits anything."""
    ours, theirs = to_dict(asked), to_dict(there)
    for name, value in ours.items():
        if value != theirs[name] and value is not None:
            yield f"{group}.{name} (there {theirs[name]}, asked for {value})"

"""The training loop and its clock; the mathematics is the learner's."""

import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from qtransformer import normalisation
from qtransformer.batch import Batch
from qtransformer.checkpoint import (
    Artefact,
    best_scores,
    build_network,
    latest_resumable,
    load_weights,
    prune_checkpoints,
    read_checkpoint,
    read_training_state,
    set_best,
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
from qtransformer.errors import ConfigError, QTransformerError, SpecMismatchError
from qtransformer.evaluate import evaluate, no_worse
from qtransformer.files import write_json
from qtransformer.learner import QLearner
from qtransformer.memory import Memory
from qtransformer.metrics import JsonLines, Meter
from qtransformer.models.q_transformer import QTransformer
from qtransformer.policy import Policy, pick_device
from qtransformer.run_guard import Stop, exclusive, graceful_stop
from qtransformer.types import ActionSpec, Env, Episode, Observation, ObservationSpec
from qtransformer.value_heads.support import accepts, find_support, resolved

LogSink = Callable[[int, Mapping[str, float]], None]
"""Called with (step, averages) whenever a line is logged."""

VALIDATION_SEED = 500_000
"""First seed of validation episodes, far from any used for collection or test."""
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
        """For `Policy.from_checkpoint`: the best checkpoint by validation, else the latest."""
        return self.directory


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
        if config.algo is not Algo.bc and config.cloning_steps >= config.steps:
            raise ConfigError(
                f"cloning_steps={config.cloning_steps} of steps={config.steps} leave none to learn values in; raise steps above "
                f"{config.cloning_steps}, lower cloning_steps, or clone alone with algo=bc"
            )
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
        self.eval_env, self.sinks, self.progress = eval_env, sinks, progress
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
        self._best_success = -1.0

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
            with closing(JsonLines(self.directory / "metrics.jsonl", step)) as log, self._bar(step) as bar:
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
        since, logged = perf_counter(), step
        self.learner.network.train()
        while step < config.steps and not stop.requested:
            began = perf_counter()
            batch = next(batches)
            waited = perf_counter() - began
            metrics = self.learner.update(batch, step)
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
                since += perf_counter() - began
        if stop.requested and step % config.save_every and step < config.steps:
            self._save(step, log, validate=False)  # in a hurry, and resuming must choose the best as if never stopped
        return step

    def _batches(self, step: int) -> Iterator[Batch]:
        """The batch of gradient step `step` and of all that follow: first those to imitate, then those to learn values from."""
        config = self.config
        cloned = config.steps if config.algo is Algo.bc else config.cloning_steps
        if step < cloned:
            yield from itertools.islice(self._segments(step, "success" if config.bc_filter_success else "all"), cloned - step)
        yield from self._segments(max(step, cloned), "all")

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
        for sink in self.sinks:
            sink(step, values)

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
        success = self._validate(step, log) if validate else -1.0
        is_best = success >= 0 and no_worse(success, self._best_success, self.config.eval_episodes)
        self._best_success = max(success, self._best_success)
        position = {
            "step": step,
            "best_success": self._best_success,
            "best_with": success if is_best else None,
            "batch_segments": self.config.optim.batch_segments,
        }
        checkpoint = write_checkpoint(self.checkpoints, step, artefact, self.learner.state_dict(), position)
        if is_best:
            set_best(self.checkpoints, checkpoint, validation_success=success)
        prune_checkpoints(self.checkpoints, self.config.keep_checkpoints)
        network.train()

    def _validate(self, step: int, log: JsonLines) -> float:
        """Success on validation objects, -1 where nothing is evaluated. The best checkpoint is the newest that is no worse than the
        highest before it."""
        if not self.config.eval_episodes or self.eval_env is None:
            return -1.0
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + self.config.eval_episodes)
        success = evaluate(self.eval_env, self.policy, seeds).success
        self._log(step, {"validation_success": success}, log)
        return success

    def _begin(self, describe: Callable[[], object] = lambda: None) -> int:
        if latest_resumable(self.directory) is not None:
            raise ConfigError(
                f"{self.directory} holds a run already: `qtransformer resume run={self.directory}` goes on with it, "
                "another run=... starts a new one"
            )
        next(self._batches(0))  # before there is a run: a mended command must not stumble over one that could not begin
        describe()  # first: with a folder of checkpoints, but no description, a killed run could be neither started nor resumed
        self.checkpoints.mkdir(exist_ok=True)
        write_json(self.directory / "config.json", to_dict(self.config))
        return 0

    def _restore(self) -> int:
        directory = latest_resumable(self.directory)
        if directory is None:
            return self._begin()  # killed before its first checkpoint: the same start again
        metadata = json.loads((directory / "metadata.json").read_text())
        if metadata["dataset_fingerprint"] != self.dataset.fingerprint:
            raise SpecMismatchError(
                f"{directory} was trained on another dataset (fingerprint {metadata['dataset_fingerprint'][:12]}, "
                f"found {self.dataset.fingerprint[:12]}); resume with the same data, or fine-tune with init={directory}"
            )
        load_weights(self.learner.network, directory)
        self._keep_normalisation(json.loads((directory / "stats.json").read_text()), str(directory))
        state, position = read_training_state(directory)
        _warn_of_other_order(position, self.config.optim.batch_segments, str(directory))
        self.learner.load_state_dict(state)
        self._best_success = float(position["best_success"])
        set_latest(directory)  # in case that saving it was killed before that
        self._mend_best(directory, position.get("best_with"))
        return int(position["step"])

    def _mend_best(self, checkpoint: Path, success: float | None) -> None:
        """Point best.json at a checkpoint that was the best by validation, in case that saving it was killed before that."""
        found = best_scores(self.checkpoints)
        chosen_otherwise = found and "validation_success" not in found  # by `eval select=true`, which comes later
        if success is not None and not chosen_otherwise:
            set_best(self.checkpoints, checkpoint, validation_success=success)

    def _initial_network(self) -> QTransformer:
        data, init = self.dataset, self.config.init
        if not init:
            config = replace(self.config, value=self._value)
            return build_network(config, data.action_spec, data.observation_spec, self.stats)
        init = str(latest_resumable(self.directory) or init)  # what a run began from may be gone when it is resumed
        start = read_checkpoint(init, self.device)
        check_specs(start.action_spec, start.observation_spec, data.action_spec, data.observation_spec, init)
        if start.config.model != self.config.model or not accepts(self.config.value, start.config.value):
            raise SpecMismatchError(
                f"{init} has another network: model {to_dict(start.config.model)}, value "
                f"{to_dict(start.config.value)}; asked for model {to_dict(self.config.model)}, value "
                f"{to_dict(self.config.value)}; use the checkpoint's settings"
            )
        self._keep_normalisation(start.stats, init)
        self.support = self.support.including(start.network.value_head.v_min, start.network.value_head.v_max)
        return start.network

    @property
    def _value(self) -> ValueConfig:
        """The value head's settings with numbers in the place of what was left to the data."""
        return resolved(self.config.value, self.support, self.dataset.stats)

    def _keep_normalisation(self, kept: Mapping[str, Any], where: str) -> None:
        """Weights go on with the normalisation they were learned under; a warning says where these data lie far from it."""
        far = normalisation.shifted(self.dataset.observation_spec.proprio_names, kept, self.stats)
        if far:
            warnings.warn(
                f"{where} was trained on other proprioception: in these data {'; '.join(far)}. Its normalisation is kept; "
                "check units and robot, or train afresh without init",
                stacklevel=2,
            )
        self.stats = {**self.stats, **{key: kept[key] for key in normalisation.KEYS}}

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


def _warn_of_other_order(position: Mapping[str, Any], batch_segments: int, where: str) -> None:
    """Say once what changes with other batches: batch k of b segments takes segments k * b to (k + 1) * b."""
    before = position.get("batch_segments", batch_segments)  # earlier checkpoints do not say
    if before != batch_segments:
        told = "batches are left out" if batch_segments > before else "batches are drawn again"
        warnings.warn(
            f"{where} was saved with optim.batch_segments={before} and goes on with {batch_segments}: the order of samples changes "
            f"and some {told}; resume with {before} to go on as if never stopped",
            stacklevel=2,
        )

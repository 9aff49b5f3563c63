"""Environments and actors as picklable recipes, so that worker processes can make their own."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qtransformer.acting import ActingConfig
from qtransformer.cli.compose import UsageError
from qtransformer.errors import ConfigError
from qtransformer.evaluate import EpisodeResult, run_episode
from qtransformer.policy import Policy
from qtransformer.rollout import rollout
from qtransformer.suggest import suggest
from qtransformer.types import Actor, Env, Episode, ObservationSpec

SIMULATOR = "qtransformer_sim:make_env"
TRAINING_SEEDS = 10**9
"""First scene seed of collected episodes: validation (500,000 and up) and test (1,000 and up) stay far below it."""
MAX_EPISODES = 10**6
"""Scene seeds set aside for every `seed` of a collection."""


@dataclass(frozen=True, slots=True)
class EnvFactory:
    """A function that makes an environment, by name, and its arguments."""

    target: str
    """`package.module:function`; from the command line, never from a file."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Env:
        make = _load(self.target)
        _check_arguments(make, self.kwargs, self.target)
        try:
            return make(**self.kwargs)
        except TypeError as error:
            raise ConfigError(f"{self.target} cannot be called with {dict(self.kwargs)}: {error}") from error


def simulator() -> Any:
    """The package `qtransformer_sim`, which needs PyBullet."""
    try:
        return import_module("qtransformer_sim")
    except ImportError as error:
        raise ConfigError(
            f"the simulator cannot be imported ({error}); pip install -e '.[sim]' in the checkout, on Python 3.10 or 3.11"
        ) from error


def observed_env_kwargs(spec: ObservationSpec) -> dict[str, Any]:
    """What an observation specification says about the environment it came from."""
    return {"cameras": {name: (shape[0], shape[1]) for name, shape in spec.cameras.items()}, "control_hz": spec.control_hz}


def scene_seed(seed: int, index: int) -> int:
    """The scene of a collection's episode."""
    return TRAINING_SEEDS + seed * MAX_EPISODES + index


@dataclass(frozen=True, slots=True)
class CollectingWorker:
    """Logs episode i of a collection, which follows from (settings, seed, i) alone."""

    env: EnvFactory
    recipe: str
    seed: int

    def __call__(self) -> Callable[[int], Episode]:
        torch.set_num_threads(1)
        env, sim = self.env(), simulator()

        def collect(index: int) -> Episode:
            noise = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
            expert = sim.NoisyExpert(env, sim.RECIPES[self.recipe], noise)
            episode = rollout(env, expert, scene_seed(self.seed, index))
            episode.info |= {"mode": expert.mode}
            return episode

        return collect


ActorMaker = Callable[[int], Actor]
"""An actor for the episode of a seed."""


@dataclass(frozen=True, slots=True)
class PolicyMaker:
    """The trained network of a run; loaded once per process."""

    run: str
    device: str
    acting: ActingConfig

    def __call__(self, env: Env) -> ActorMaker:
        del env
        policy = Policy.from_checkpoint(self.run, self.device, self.acting)
        return lambda seed: policy


@dataclass(frozen=True, slots=True)
class ExpertMaker:
    """The simulator's scripted expert."""

    def __call__(self, env: Env) -> ActorMaker:
        sim = simulator()
        if not isinstance(env, sim.RobotEnv):
            raise ConfigError(f"actor=expert knows only qtransformer_sim's environments, found {type(env).__name__}")
        return lambda seed: sim.ScriptedExpert(env)


@dataclass(frozen=True, slots=True)
class RandomMaker:
    """Uniform actions; the generator starts anew with each episode, so that workers do not matter."""

    def __call__(self, env: Env) -> ActorMaker:
        return lambda seed: simulator().RandomActor(env.action_spec, seed)


@dataclass(frozen=True, slots=True)
class EvaluatingWorker:
    """Acts and judges the episode of a seed."""

    env: EnvFactory
    actor: PolicyMaker | ExpertMaker | RandomMaker
    discount: float

    def __call__(self) -> Callable[[int], EpisodeResult]:
        torch.set_num_threads(1)
        env = self.env()
        actor_for = self.actor(env)
        return lambda seed: run_episode(env, actor_for(seed), seed, self.discount)


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    if target == SIMULATOR:
        return simulator().make_env
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"env={target} cannot be found ({error}); write it as package.module:function") from error


def _check_arguments(function: Callable[..., Any], kwargs: Mapping[str, Any], target: str) -> None:
    """Refuse an argument that a function does not have, with the likely one. What tells no signature is called as it is."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in kwargs:
        if name not in known:
            raise ConfigError(f"env_kwargs: {target} has no argument '{name}'; {suggest(name, known)}")


def run_directory(path: Path) -> Path:
    """The run a path belongs to: itself, or the one whose checkpoint it is."""
    return path.parent.parent if path.parent.name == "checkpoints" else path

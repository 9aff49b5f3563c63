"""How often an actor succeeds, with an honest interval."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from qtransformer.rollout import StepHook, rollout
from qtransformer.types import Actor, Env, Episode

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """Outcome of one evaluation episode."""

    seed: int
    success: bool
    steps: int
    reward: float
    """Undiscounted sum."""
    terminated: bool
    """False: the time limit ended it."""
    values: tuple[float, ...] = ()
    """Value the actor expected of each of its actions; empty for actors without values."""
    returns: tuple[float, ...] = ()
    """Discounted return that followed each action, under the actor's own discount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Outcomes of many episodes."""

    results: tuple[EpisodeResult, ...]
    seconds: float

    @property
    def success(self) -> float:
        return sum(r.success for r in self.results) / max(1, len(self.results))

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the success rate."""
        return wilson(sum(r.success for r in self.results), len(self.results))

    @property
    def mean_steps(self) -> float:
        return float(np.mean([r.steps for r in self.results])) if self.results else 0.0

    def summary(self) -> dict[str, Any]:
        """The numbers scripts read: success, low, high, episodes, seconds."""
        low, high = self.interval
        return {
            "success": self.success,
            "low": low,
            "high": high,
            "episodes": len(self.results),
            "seconds": self.seconds,
            "mean_steps": self.mean_steps,
        }

    def to_dict(self) -> dict[str, Any]:
        return {**self.summary(), "results": [asdict(r) for r in self.results]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Evaluation":
        results = tuple(
            EpisodeResult(**{**r, "values": tuple(r["values"]), "returns": tuple(r["returns"])}) for r in data["results"]
        )
        return cls(results=results, seconds=float(data["seconds"]))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.success:.2f} [{low:.2f}, {high:.2f}] over {len(self.results)} episodes"


def wilson(successes: float, episodes: int) -> tuple[float, float]:
    """95% Wilson score interval of a proportion (Wilson 1927): right also near 0 and 1, where +- intervals are not."""
    if episodes == 0:
        return 0.0, 1.0
    p, z2 = successes / episodes, Z_95 * Z_95
    center = (p + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = Z_95 / (1 + z2 / episodes) * math.sqrt(p * (1 - p) / episodes + z2 / (4 * episodes**2))
    return max(0.0, center - half), min(1.0, center + half)


def no_worse(success: float, best: float, episodes: int) -> bool:
    """Whether a success rate is below another by at most the standard error of their difference, both from `episodes` episodes.

    The one-standard-error rule (Breiman et al. 1984): what chance explains is no reason to prefer the shorter training.
    """
    rate = (success + best) / 2
    return success >= best or (best - success) ** 2 <= 2 * rate * (1 - rate) / episodes


def run_episode(env: Env, actor: Actor, seed: int, discount: float = 1.0, on_step: StepHook | None = None) -> EpisodeResult:
    """Act one episode of `env` from `seed` and judge it."""
    return judge(rollout(env, actor, seed, on_step), seed, discount)


def judge(episode: Episode, seed: int, discount: float) -> EpisodeResult:
    """The outcome of a finished episode."""
    values = episode.info.get("values", [])
    return EpisodeResult(
        seed=seed,
        success=episode.success,
        steps=len(episode),
        reward=float(episode.rewards.sum()),
        terminated=bool(episode.terminated[-1]),
        values=tuple(float(v) for v in values),
        returns=tuple(returns_to_go(episode.rewards, discount).tolist()) if values else (),
    )


def returns_to_go(rewards: np.ndarray, discount: float) -> np.ndarray:
    """Discounted return that followed each step of an episode, float64 (T,)."""
    returns, ahead = np.zeros(len(rewards)), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        ahead = float(rewards[t]) + discount * ahead
        returns[t] = ahead
    return returns


def evaluate(env: Env, actor: Actor, seeds: Sequence[int], discount: float = 1.0) -> Evaluation:
    """Act one episode per seed, one after the other; `qtransformer eval` spreads the same work over all cores."""
    start = perf_counter()
    results = tuple(run_episode(env, actor, seed, discount) for seed in seeds)
    return Evaluation(results=results, seconds=perf_counter() - start)

"""How often an actor succeeds, with an honest interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from qtransformer.intervals import wilson
from qtransformer.returns import returns_to_go
from qtransformer.rollout import rollout
from qtransformer.types import Actor, Env, Episode


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
        """The numbers scripts read: success, low, high, episodes, seconds, mean_steps."""
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


def run_episode(env: Env, actor: Actor, seed: int, discount: float = 1.0) -> EpisodeResult:
    """Act one episode of `env` from `seed`."""
    return episode_result(rollout(env, actor, seed), seed, discount)


def episode_result(episode: Episode, seed: int, discount: float) -> EpisodeResult:
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


def evaluate(env: Env, actor: Actor, seeds: Sequence[int], discount: float = 1.0) -> Evaluation:
    """Act one episode per seed, one after the other; `qtransformer eval` spreads the same work over all cores."""
    start = perf_counter()
    results = tuple(run_episode(env, actor, seed, discount) for seed in seeds)
    return Evaluation(results=results, seconds=perf_counter() - start)

"""Judges checkpoints one after the other on the same log, and names the best."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qtransformer.checkpoint import complete_checkpoints, resolve_checkpoint
from qtransformer.checks import check_specs
from qtransformer.errors import ConfigError, DatasetError
from qtransformer.log_evaluation import scores
from qtransformer.log_evaluation.behaviour import CriticConfig, critic_config, fit_behaviour
from qtransformer.log_evaluation.fitted_q import Transitions, action_values, encode, evaluate_policy
from qtransformer.log_evaluation.replay import Replay, replay
from qtransformer.models.q_transformer import QTransformer
from qtransformer.policy import Policy
from qtransformer.trainer import TrainingData

SELECTION = ("likelihood_gap", "match_gap")
"""The score that chooses: the first one that all checkpoints have. Why this one: docs/log_evaluation.md."""
LOWER_IS_BETTER = ("td_error", "calibration_error", "bvft")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointScores:
    """What a log says of one checkpoint."""

    checkpoint: Path
    algo: str
    scores: dict[str, float]
    """NaN where a score does not exist for this checkpoint."""
    td_error_per_dimension: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what does not exist is null."""
        return {
            "checkpoint": str(self.checkpoint),
            "algo": self.algo,
            "scores": {name: _number_or_none(value) for name, value in self.scores.items()},
            "td_error_per_dimension": [_number_or_none(value) for value in self.td_error_per_dimension],
        }


@dataclass
class LogJudge:
    """Judges policies on one log.

    Args:
        data: held-out episodes, successes and failures.
        name: what to call them in errors.
        config: the critic's settings.
        critic_data: what the behaviour's critic learns from; the held-out episodes themselves where None.
    """

    data: TrainingData
    name: str
    config: CriticConfig = field(default_factory=CriticConfig)
    critic_data: TrainingData | None = None

    def __post_init__(self) -> None:
        if self.data.stats.success_rate in (0.0, 1.0):
            kind = "successes" if self.data.stats.success_rate else "failures"
            raise DatasetError(
                f"{self.name}: expected successful and failed episodes, found {kind} alone; "
                "what tells good from bad is learned from both: add the others, or relabel them"
            )
        if self.critic_data is not None:
            ours, theirs = self.data, self.critic_data
            specs = ours.action_spec, ours.observation_spec, theirs.action_spec, theirs.observation_spec
            check_specs(*specs, f"critic_data beside {self.name}")
        self._critic: QTransformer | None = None
        self._log: Transitions | None = None
        self._values: dict[Path, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self, like: Policy, v_min: float, v_max: float, tick: Callable[[], object] = lambda: None) -> None:
        """Learn the behaviour's critic of values in a range, with a policy's history and memory. `tick` is called at every step."""
        if self.config.fqe_steps == 0:
            return
        data = self.data if self.critic_data is None else self.critic_data
        self._critic = fit_behaviour(critic_config(like.config, self.config, v_min, v_max), data, like.device, tick)
        self._log = encode(self._critic, self.data.episodes())

    def check(self, policy: Policy, checkpoint: Path) -> None:
        """Whether the log can judge a policy.

        Raises:
            SpecMismatchError: it was made for other cameras, proprioception or actions than the log's.
            ConfigError: its values are of returns under another discount.
        """
        where, discount = f"{checkpoint} on {self.name}", policy.config.targets.discount
        for data in filter(None, (self.data, self.critic_data)):
            if data.discount != discount:
                raise ConfigError(
                    f"{where}: expected returns under the policy's discount {discount:g}, found {data.discount:g}; open the "
                    f"episodes with discount={discount:g}, and judge checkpoints of another discount apart"
                )
        check_specs(policy.action_spec, policy.observation_spec, self.data.action_spec, self.data.observation_spec, where)

    def judge(self, policy: Policy, checkpoint: Path) -> CheckpointScores:
        """All scores of one checkpoint but the tournament's, which needs the others."""
        self.check(policy, checkpoint)
        seen = replay(policy, self.data.episodes(), self.data.stats.reward_min)
        head = policy.network.value_head
        found = scores.replay_scores(seen, head.v_min, head.v_max) | self._fitted(seen)
        if seen.has_values:
            self._values[checkpoint] = seen.q_logged[seen.has_bellman, -1], seen.bellman[seen.has_bellman]
        return CheckpointScores(
            checkpoint=checkpoint,
            algo=policy.config.algo.value,
            scores=found,
            td_error_per_dimension=tuple(scores.td_error_per_dimension(seen).tolist()),
        )

    def tournament(self, v_min: float, v_max: float) -> dict[Path, float]:
        """BVFT losses of the checkpoints judged so far, those that have values."""
        if not self._values:
            return {}
        q, bellman = (np.stack(rows) for rows in zip(*self._values.values(), strict=True))
        return dict(zip(self._values, scores.bvft(q, bellman, v_min, v_max).tolist(), strict=True))

    def _fitted(self, seen: Replay) -> dict[str, float]:
        """What the critic thinks of the actions the policy would take."""
        if self._critic is None or self._log is None:
            return {}
        log, device = self._log, self._log.tokens.device
        bins = self._critic.tokenizer.encode(torch.from_numpy(seen.greedy_actions).to(device))
        fitted = evaluate_policy(self._critic, log, bins, discount=self.data.discount, steps=self.config.fqe_steps)
        acted = torch.from_numpy(seen.has_action).to(device)
        return {
            "fqe": float(action_values(fitted, log, bins)[log.first].mean()),
            "behaviour_q": float(action_values(self._critic, log, bins)[acted].mean()),
        }


def judge_all(
    judge: LogJudge, checkpoints: Sequence[Path], device: str = "auto", tick: Callable[[str], object] = lambda done: None
) -> list[CheckpointScores]:
    """Scores in the order of the checkpoints; `tick` is told what was just done: "critic step" or "checkpoint".

    Raises:
        SpecMismatchError: a checkpoint was made for another robot than the log's.
        ConfigError: a checkpoint's discount is not that of the log's returns.
    """
    heads = []
    for checkpoint in checkpoints:  # before the critic learns for minutes
        policy = Policy.from_checkpoint(checkpoint, device)
        judge.check(policy, checkpoint)
        heads.append(policy.network.value_head)
    # A training widens its range as it goes: the critic of them all needs the widest, whichever checkpoint is named first.
    v_min, v_max = min(head.v_min for head in heads), max(head.v_max for head in heads)
    judge.prepare(Policy.from_checkpoint(checkpoints[0], device), v_min, v_max, lambda: tick("critic step"))
    verdicts = []
    for checkpoint in checkpoints:
        verdicts.append(judge.judge(Policy.from_checkpoint(checkpoint, device), checkpoint))
        tick("checkpoint")
    losses = judge.tournament(v_min, v_max)
    return [replace(v, scores=v.scores | {"bvft": losses.get(v.checkpoint, math.nan)}) for v in verdicts]


def checkpoints_of(run: str | Path) -> list[Path]:
    """All complete checkpoints of a run, oldest first; a path that is a checkpoint itself stands alone."""
    path = Path(run)
    return complete_checkpoints(path / "checkpoints") or [resolve_checkpoint(path)]


def selection_score(verdicts: Iterable[CheckpointScores]) -> str:
    """The score by which these checkpoints are compared: the first of `SELECTION` that all of them have (the last always)."""
    verdicts = list(verdicts)
    return next(name for name in SELECTION if all(math.isfinite(v.scores[name]) for v in verdicts))


def best(verdicts: Sequence[CheckpointScores], score: str) -> CheckpointScores:
    """The checkpoint with the best score; a tie goes to the later one."""
    sign = -1 if score in LOWER_IS_BETTER else 1
    return max(reversed(verdicts), key=lambda verdict: sign * verdict.scores[score])


def _number_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

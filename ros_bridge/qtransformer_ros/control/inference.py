"""The network in a thread of its own, which always takes the newest observation: nothing queues, and nobody waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.policy import Policy, PolicyDecision
from qtransformer.types import Observation
from qtransformer_ros.control.effects import DecidedAction, Request

MAX_WAITING = 8
"""Requests for scores that may wait; the oldest is given up first."""


class NotFiniteError(QTransformerError):
    """The network computed NaN or infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """What came of a request: exactly one of `decided`, `error`."""

    request: Request
    decided: DecidedAction | None = None
    decision: PolicyDecision | None = None
    """With `decided`: the values behind it."""
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    tag: Any
    """The asker's, given back."""
    actions: np.ndarray
    """(k, n), robot units."""
    seen: Request | None
    """What would be decided on, in an episode of its own; None: what was last decided on, with the frames before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What came of it: exactly one of `scores`, `error`."""

    request: ScoreRequest
    scores: np.ndarray | None = None
    """(k, n)"""
    stamp_ns: int = 0
    """Newest header stamp of the observation that they are for."""
    error: Exception | None = None


class InferenceThread:
    """Owns the policy while it runs. `decide` and `score` return at once; answers wait in `answers`, after a call of `notify`.

    Args:
        policy: nobody else may use it meanwhile.
        notify: called in the thread after every answer.
    """

    def __init__(self, policy: Policy, notify: Callable[[], None]) -> None:
        self.answers: deque[InferenceResult | Scores] = deque()
        self._policy, self._notify = policy, notify
        self._wake = threading.Condition()
        self._next: Request | None = None
        self._to_score: deque[ScoreRequest] = deque(maxlen=MAX_WAITING)
        self._ended = False
        self._generation: int | None = None
        self._decided: Request | None = None
        """The one last decided on."""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def decide(self, request: Request) -> None:
        """Replaces a request that still waits."""
        with self._wake:
            self._next = request
            self._wake.notify()

    def score(self, request: ScoreRequest) -> None:
        """Taken up when no decision waits."""
        with self._wake:
            self._to_score.append(request)
            self._wake.notify()

    def end(self, timeout_s: float) -> bool:
        """Finish what is being computed, and no more. Returns whether it ended in time."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._take()) is not None:
            self.answers.append(self._decide(job) if isinstance(job, Request) else self._score(job))
            self._notify()

    def _take(self) -> Request | ScoreRequest | None:
        """The next job, decisions first; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._ended or self._next is not None or self._to_score)
            if self._ended:
                return None
            if self._next is None:
                return self._to_score.popleft()
            job, self._next = self._next, None
            return job

    def _decide(self, request: Request) -> InferenceResult:
        start = time.perf_counter()
        try:
            self._begin_episode(request.generation)
            if self._decided is not None and self._decided.number != request.acted_on:
                self._policy.take_back()
            decision = self._policy.decide(request.observation)
            # An argmax makes a bin, and so a finite action, even of NaN.
            if not np.isfinite(decision.q_values).all():
                raise NotFiniteError("the network's values are not finite: what it saw, or its weights, are beyond its numbers")
        except Exception as error:
            return InferenceResult(request=request, error=error)
        self._decided, seconds = request, time.perf_counter() - start
        decided = DecidedAction(request=request, action=decision.action, value=self._policy.value, seconds=seconds)
        return InferenceResult(request=request, decided=decided, decision=decision)

    def _begin_episode(self, generation: int) -> None:
        if generation != self._generation:
            self._policy.reset()
            self._generation, self._decided = generation, None

    def _score(self, request: ScoreRequest) -> Scores:
        try:
            seen = request.seen or self._decided
            if request.seen is not None:
                self._leave_episode(request.seen.generation)
            scores = self._policy.score(request.seen and request.seen.observation, request.actions)
            return Scores(request=request, scores=scores, stamp_ns=max(seen.stamps.values(), default=0) if seen else 0)
        except Exception as error:
            return Scores(request=request, error=error)

    def _leave_episode(self, generation: int) -> None:
        if self._generation is not None and generation < self._generation:
            raise ConfigError("asked before the episode that runs now began; ask again")
        self._policy.reset()
        self._generation = self._decided = None


def measured_seconds(policy: Policy, observation: Observation, budget_s: float = 3.0) -> np.ndarray:
    """How long decisions take [s], one after the other, after a warm-up; five to a hundred. The policy's episode is forgotten."""
    for _ in range(3):
        policy.decide(observation)
    seconds, end = [], time.monotonic() + budget_s
    while len(seconds) < 5 or (len(seconds) < 100 and time.monotonic() < end):
        start = time.perf_counter()
        policy.decide(observation)
        seconds.append(time.perf_counter() - start)
    policy.reset()
    return np.array(seconds)


def blank_observation(cameras: dict[str, Sequence[int]], proprio: int) -> Observation:
    """Of the right shapes, to warm up with."""
    images = {name: np.zeros(tuple(shape), np.uint8) for name, shape in cameras.items()}
    return {"images": images, "proprio": np.zeros(proprio, np.float32), "instruction": ""}

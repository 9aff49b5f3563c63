"""When a decision is asked for, and which answer is the one that is waited for."""

from collections import Counter, deque
from dataclasses import dataclass

from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.control.buffer import Clock
from qtransformer_ros.control.effects import DecidedAction, Request
from qtransformer_ros.control.intake import UNUSABLE, Intake
from qtransformer_ros.control.observation_watch import ObservationWatch
from qtransformer_ros.control.runtime_settings import RuntimeSettings


@dataclass(slots=True)
class _Flight:
    """A request on its way through the network."""

    request: Request
    asked_ns: int
    missed: bool = False
    """Whether a tick has counted it as a miss already."""


@dataclass(slots=True)
class _Run:
    """What is true of one stretch of RUNNING, and begins anew with the next."""

    began_ns: int = 0
    requests: int = 0
    misses: int = 0
    """In a row."""
    skewed: int = 0
    """Ticks in a row."""
    unusable: int = 0
    """Ticks in a row whose images could not be decoded."""


class DecisionRequests:
    """At most one request is under way. Where a reason is returned, it is one to hold, and "" is none.

    `counts` has requests, misses, dropped_answers, skewed, unusable; `seconds` the last inference times.
    """

    def __init__(
        self, intake: Intake, watch: ObservationWatch, settings: RuntimeSettings, clock: Clock, counts: Counter[str]
    ) -> None:
        self.seconds: deque[float] = deque(maxlen=500)
        self._intake, self._watch, self._settings, self._clock, self._counts = intake, watch, settings, clock, counts
        self._number = self._generation = self._acted_on = 0
        self._flight: _Flight | None = None
        self._run = _Run()
        self._consumed: dict[str, int] = {}
        """Topic to the stamp of the sample last acted on."""

    # Beginnings and ends

    def begin(self) -> None:
        """A stretch of RUNNING, and an episode of the policy."""
        self._run = _Run(began_ns=self._clock.monotonic_ns())
        self._generation += 1

    def begin_episode(self) -> None:
        """Answers to earlier requests, and the policy's history, count no more."""
        self.abandon()
        self._generation += 1

    def abandon(self) -> None:
        """An answer that will not be used leaves its samples unused."""
        if self._flight is not None:
            self._flight, self._consumed = None, {}

    def forget(self) -> None:
        """Time jumped: no stamp of before is comparable with what comes."""
        self.begin_episode()
        self._consumed = {}

    @property
    def lasted_s(self) -> float:
        """How long this stretch lasts [s]; in lockstep of simulated time, which is what a simulator that waits is measured by."""
        if self._settings.lockstep:
            return self._run.requests * self._settings.period_s
        return self._since_s(self._run.began_ns)

    # Asking

    def ask(self) -> Request | str:
        """A request, if it is time for one; else a reason."""
        if self._settings.lockstep:
            return self._asked() if self._watch.is_complete(self._consumed) else ""
        if self._flight is not None:
            self._flight.missed = True
            if why := self._miss():
                return why
        if self._intake.samples.stamps(self._intake.observed) == self._consumed:
            return ""  # nothing new was seen: ticks that come in a burst decide once
        if self._watch.is_skewed():
            return self._skewed()
        self._run.skewed = 0
        return self._asked()

    def look(self) -> Request | None:
        """What would be asked now, to judge other policies' actions by; None where an image is damaged."""
        try:
            observation = self._intake.observation()
        except UNUSABLE:
            return None
        stamps = self._intake.samples.stamps(self._intake.observed)
        return Request(observation=observation, stamps=stamps, number=-1, generation=self._generation)

    def _asked(self) -> Request | str:
        try:
            observation = self._intake.observation()
        except UNUSABLE as error:
            return self._unusable(str(error) or type(error).__name__)
        self._run.unusable = 0
        self._consumed = self._intake.samples.stamps(self._intake.observed)
        self._number += 1
        self._run.requests += 1
        self._counts["requests"] += 1
        request = Request(
            observation=observation,
            stamps=dict(self._consumed),
            number=self._number,
            generation=self._generation,
            acted_on=self._acted_on,
        )
        self._flight = _Flight(request=request, asked_ns=self._clock.monotonic_ns())
        return request

    # Answers

    def receive(self, answer: DecidedAction) -> bool:
        """Take note of an answer. Returns whether it is the one that is waited for."""
        self.seconds.append(answer.seconds)
        if self._flight is not None and answer.request.number == self._flight.request.number:
            return True
        self._counts["dropped_answers"] += 1
        return False

    def is_late(self) -> bool:
        """Whether an answer of now is too old to act on."""
        if self._flight is None or self._settings.lockstep:
            return False
        return self._since_s(self._flight.asked_ns) > self._settings.answer_timeout_s

    def drop(self) -> str:
        """Drop the answer to what is under way. Returns a reason."""
        flight, self._flight = self._flight, None
        self._counts["dropped_answers"] += 1
        return "" if flight is None or flight.missed else self._miss()

    def settle(self) -> None:
        """The answer was acted on."""
        if self._flight is not None:
            self._acted_on, self._flight = self._flight.request.number, None
        self._run.misses = 0

    # Patience

    def _unusable(self, why: str) -> str:
        self._counts["unusable"] += 1
        self._run.unusable += 1
        impatient = self._settings.lockstep or self._run.unusable >= self._settings.max_consecutive_rejections
        return f"rejected: {why}" if impatient else ""

    def _skewed(self) -> str:
        self._counts["skewed"] += 1
        self._run.skewed += 1
        return "" if self._run.skewed < self._settings.max_consecutive_misses else self._watch.skew_complaint()

    def _miss(self) -> str:
        self._counts["misses"] += 1
        self._run.misses += 1
        if self._run.misses < self._settings.max_consecutive_misses:
            return ""
        return f"inference_late: {self._run.misses} control periods in a row"

    def _since_s(self, then_ns: int) -> float:
        return (self._clock.monotonic_ns() - then_ns) / NANOSECONDS

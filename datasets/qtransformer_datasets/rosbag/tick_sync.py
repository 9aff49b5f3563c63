"""When every topic has a sample: from times of messages to ticks, and what is missing between them.

All times are int64 nanoseconds. At a tick the robot is taken to know, of every observed topic, the latest sample at or
before it: that is what it knew, and what a live node reads; a later or interpolated sample would let a policy see the
future. A sample older than the topic's tolerance does not count: that is a gap.

The action of a step is the latest command sent before the next tick, that is, the answer to the observation at its
beginning. A command counts if it came within the step, or no longer than its tolerance before it.
"""

from dataclasses import dataclass

import numpy as np

NANOSECONDS = 1_000_000_000
FOREVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the bag, by receipt [ns], that holds at most one episode."""

    start: int = 0
    stop: int = FOREVER
    until: int = FOREVER
    """Where the next episode starts: the last samples, and the outcome, may come after the stop."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One topic as one source of the contract reads it."""

    topic: str
    times: np.ndarray
    """int64 (N,), in the order of recording."""
    tolerance: int
    is_command: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without samples that is long enough to cost ticks."""

    topic: str
    start: int
    """Time of the last sample before it [ns]."""
    length: int
    """[ns]"""


@dataclass(frozen=True, slots=True)
class Ticks:
    """Consecutive ticks at which everything is there."""

    times: np.ndarray
    """int64 (T + 1,)"""
    samples: tuple[np.ndarray, ...]
    """Per stream the position, in the order of recording, of the message it gives: (T + 1,), of a command (T,)."""
    digests: tuple[str, ...] = ()
    """Of each observation as the policy saw it (`ros_messages.observation_digest`); "" where nobody said. Empty: nobody says."""


def synchronise(streams: list[Stream], hz: float) -> tuple[list[Ticks], list[Gap]]:
    """Every run of at least one step, in order, and every gap that cost ticks.

    What precedes the first sample of the latest topic, and what follows the last command, is no gap: an episode begins
    when everything is there, and ends with its commands. Nor is a topic that stops within a tick of the others.
    """
    if any(not len(stream.times) for stream in streams):
        return [], []
    sorted_streams = [_Sorted(stream) for stream in streams]
    observed = [s for s in sorted_streams if not s.is_command]
    grid = _Grid(max(int(s.times[0]) for s in observed), hz)
    ticks = min(observed, key=lambda s: s.tolerance).covered(grid)
    ticks = ticks[grid.times(ticks) <= max(int(s.times[-1]) for s in observed)]  # none after the last thing seen
    for stream in observed:
        at = grid.times(ticks)
        ticks = ticks[stream.age(at, at) <= stream.tolerance]
    steps = ticks[:-1][np.diff(ticks) == 1]
    for stream in sorted_streams:
        if stream.is_command:
            steps = steps[stream.age(grid.times(steps), grid.times(steps + 1) - 1) <= stream.tolerance]
    runs = np.split(steps, np.flatnonzero(np.diff(steps) != 1) + 1) if len(steps) else []
    return [_pick(grid, run, sorted_streams) for run in runs], _gaps(grid, sorted_streams)


class _Grid:
    """Ticks `origin + k / hz` for whole k from 0 on."""

    def __init__(self, origin: int, hz: float) -> None:
        self.origin, self.spacing = origin, NANOSECONDS / hz
        self.period = round(self.spacing)

    def times(self, ticks: np.ndarray) -> np.ndarray:
        return self.origin + np.rint(ticks * self.spacing).astype(np.int64)

    def at_or_after(self, times: np.ndarray) -> np.ndarray:
        """The first tick not before each time."""
        ticks = np.floor((times - self.origin) / self.spacing).astype(np.int64) - 1
        for _ in range(3):  # rounding may be off by a tick either way
            ticks = ticks + (self.times(ticks) < times)
        return ticks


class _Sorted:
    """A stream in the order of its times; of equal times the one recorded last comes last, and counts."""

    def __init__(self, stream: Stream) -> None:
        self.topic, self.tolerance, self.is_command = stream.topic, stream.tolerance, stream.is_command
        self.order = np.argsort(stream.times, kind="stable")
        self.times = stream.times[self.order]

    def latest(self, at: np.ndarray) -> np.ndarray:
        """Places among the sorted times of the latest sample at or before each time; -1 where there is none."""
        return np.searchsorted(self.times, at, "right") - 1

    def age(self, now: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Age at `now` of the latest sample at or before `at` [ns]."""
        place = self.latest(at)
        return np.where(place >= 0, now - self.times[place], np.iinfo(np.int64).max)

    def covered(self, grid: _Grid) -> np.ndarray:
        """Ticks no sample is too old for, sorted. Their number is bounded by that of the samples, whatever times those claim."""
        first, last = grid.at_or_after(self.times), grid.at_or_after(self.times + self.tolerance + 1) - 1
        first = np.maximum(first, 0)
        first[1:] = np.maximum(first[1:], last[:-1] + 1)
        counts = np.maximum(last - first + 1, 0)
        return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _pick(grid: _Grid, steps: np.ndarray, streams: list[_Sorted]) -> Ticks:
    times = grid.times(np.append(steps, steps[-1] + 1))
    # A command at the very next tick answers the next observation.
    places = [s.latest(times[1:] - 1) if s.is_command else s.latest(times) for s in streams]
    return Ticks(times, tuple(s.order[place] for s, place in zip(streams, places, strict=True)))


def _gaps(grid: _Grid, streams: list[_Sorted]) -> list[Gap]:
    """Holes between samples, and after the last one where the others go on, in which at least one tick lies."""
    observed_until = max(int(s.times[-1]) for s in streams if not s.is_command)
    end = min([observed_until, *(int(s.times[-1]) + s.tolerance for s in streams if s.is_command)])
    gaps = []
    for stream in streams:
        lead = grid.period - 1 if stream.is_command else 0  # a command within the step is in time
        begins, ends = stream.times[:-1], stream.times[1:]
        first = grid.at_or_after(begins + stream.tolerance + 1)
        last = np.minimum(grid.at_or_after(ends - lead), grid.at_or_after(np.array(end + 1))) - 1
        for i in np.flatnonzero((last >= first) & (last >= 0)):
            gaps.append(Gap(stream.topic, int(begins[i]), int(ends[i] - begins[i])))
        if not stream.is_command and end - int(stream.times[-1]) > stream.tolerance + grid.period:
            gaps.append(Gap(stream.topic, int(stream.times[-1]), end - int(stream.times[-1])))
    return sorted(gaps, key=lambda gap: gap.start)

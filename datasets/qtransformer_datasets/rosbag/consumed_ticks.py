"""Ticks as a policy reports them: every observation is made of exactly the samples that a decision saw.

Samples are named by their header stamps, so it does not matter how late, how often or in what order they came, nor whether the
robot waited for the policy. Of samples with equal stamps the one counts that had come last when the decision was made. The time of
a tick is that of its newest sample: when a decision fell is a matter of inference time, and of how a simulated clock is heard.

The action of a decision is the first command of every topic received from the decision on and before the next one. Of joint
positions that are streamed, point by point, it is the last one within the control period: where the points lead. The last
observation of an episode is what came one control period after the last decision; where that is not in the bag, it is that of the
last decision, whose own commands then lead nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS, Gap, Ticks, Window

ROUNDING = 0.02
"""Share of a control period by which stamps of one instant may differ."""
APART = 1000
"""Ticks at which the policy saw the same samples again are told apart by [ns]."""


@dataclass(frozen=True, slots=True)
class TickReport:
    """A policy's report of what it saw."""

    receive: int
    """[ns]"""
    time: int
    """When it was decided [ns], by its header."""
    stamps: Mapping[str, int]
    """Topic to the header stamp [ns] of the sample used."""
    digest: str = ""
    """Of the observation that the samples became (`ros_messages.observation_digest`)."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One topic as one source of the contract reads it."""

    topic: str
    receive: np.ndarray
    """int64 (N,) [ns], in the order of recording."""
    stamps: np.ndarray
    """int64 (N,) [ns]"""
    tolerance: int
    """[ns]"""
    is_streamed: bool = False
    """Whether a command is sent as many messages, of which the last says where it leads."""


class UnseenSample(DatasetError):
    """A decision names a sample that is not there."""


def follow(
    decisions: Sequence[TickReport],
    observed: Sequence[Samples],
    commanded: Sequence[Samples],
    window: Window,
    *,
    topic: str,
    hz: float,
    tolerance: int,
    is_damaged: bool = False,
) -> tuple[list[Ticks], list[Gap]]:
    """Every run of at least one step, in order, and every gap that parted them.

    A gap is a decision without a command, or two decisions whose times are more than a control period and `tolerance` [ns] apart,
    or go back by more than `tolerance`. What precedes the first command, and what follows the last, is no gap. `topic` is that of
    the decisions.

    Raises UnseenSample naming topic and stamp; of a damaged bag the decision is a gap instead.
    """
    own = sorted((d for d in decisions if window.start <= d.receive < window.stop), key=lambda d: d.receive)
    if not own:
        return [], []
    period = round(NANOSECONDS / hz)
    reports = _TickReports(
        topic,
        np.array([max(d.stamps.get(source.topic, 0) for source in observed) for d in own]),
        np.array([_seen(decision, observed, window, topic, is_damaged) for decision in own]),
        _commands(own, commanded, window.stop, period),
        tuple(d.digest for d in own),
    )
    acting = np.flatnonzero(reports.is_whole & reports.acts)
    if not len(acting):
        return [], []
    first, last = int(acting[0]), int(acting[-1])
    leads_on = reports.leads_on(-tolerance, period + tolerance)
    breaks = [k for k in range(first, last + 1) if not leads_on[k]]
    gaps = [reports.gap(k, observed, commanded) for k in breaks if k < last]
    starts = [k for k in range(first, last + 1) if k == first or not leads_on[k - 1]]
    ends = [*breaks, *([] if breaks and breaks[-1] == last else [last + 1])]
    runs = [_run(reports, begin, end, observed, window, period) for begin, end in zip(starts, ends, strict=True)]
    return [run for run in runs if run], gaps


@dataclass(frozen=True, slots=True)
class _TickReports:
    """All decisions of an episode; K of them, of S observed and C commanded topics."""

    topic: str
    times: np.ndarray
    """Of the newest sample of each, int64 (K,)."""
    seen: np.ndarray
    """Position of the sample of each topic, (K, S); -1 for what a damaged bag lost."""
    commands: np.ndarray
    """Position of the command to each topic, (K, C); -1 where there is none."""
    digests: tuple[str, ...]

    @property
    def is_whole(self) -> np.ndarray:
        return np.all(self.seen >= 0, axis=1)

    @property
    def acts(self) -> np.ndarray:
        return np.all(self.commands >= 0, axis=1)

    def leads_on(self, shortest: int, longest: int) -> np.ndarray:
        """Whether each decision's commands led to what the next one saw: (K,), the last never."""
        steps = np.diff(self.times)
        linked = self.is_whole[:-1] & self.acts[:-1] & self.is_whole[1:] & (steps >= shortest) & (steps <= longest)
        return np.append(linked, False)

    def gap(self, k: int, observed: Sequence[Samples], commanded: Sequence[Samples]) -> Gap:
        """Why decision k does not lead on."""
        lacking = [source.topic for source, at in zip(commanded, self.commands[k], strict=True) if at < 0]
        lacking += [source.topic for source, at in zip(observed, self.seen[k : k + 2].min(0), strict=True) if at < 0]
        return Gap((lacking or [self.topic])[0], int(self.times[k]), int(self.times[k + 1] - self.times[k]))


def _seen(decision: TickReport, observed: Sequence[Samples], window: Window, topic: str, is_damaged: bool) -> list[int]:
    """Positions of the samples of a decision; -1 for what a damaged bag lost."""
    found = []
    for source in observed:
        stamp = decision.stamps.get(source.topic)
        at = -1 if stamp is None else _position(source, stamp, decision.receive, window)
        if at < 0 and not is_damaged:
            problem = (
                f"says nothing of {source.topic}; use the contract that the policy acted through"
                if stamp is None
                else f"saw the sample of {source.topic} stamped {stamp} ns, which is not in the bag: leave this bag out"
            )
            raise UnseenSample(f"{topic}: the decision at {decision.time / NANOSECONDS:.3f} s {problem}")
        found.append(at)
    return found


def _position(source: Samples, stamp: int, receive: int, window: Window) -> int:
    """Of the samples with that stamp the last that had come; the recorder may have got it later than the policy did."""
    near = (source.receive >= window.start - source.tolerance) & (source.receive < window.until)
    own = np.flatnonzero((source.stamps == stamp) & near)
    own = own[np.argsort(source.receive[own], kind="stable")]
    known = own[source.receive[own] <= receive]
    return int(known[-1]) if len(known) else int(own[0]) if len(own) else -1


def _commands(decisions: Sequence[TickReport], commanded: Sequence[Samples], stop: int, period: int) -> np.ndarray:
    """Position of the command that came of each decision, before the next one, (K, C); -1 where there is none."""
    begins = np.array([d.receive for d in decisions])
    ends, found = np.append(begins[1:], stop), np.full((len(begins), len(commanded)), -1)
    for column, source in enumerate(commanded):
        order = np.argsort(source.receive, kind="stable")
        edges = (begins, np.minimum(ends, begins + period), ends)
        first, past, after = (np.searchsorted(source.receive[order], edge, "left") for edge in edges)
        chosen = np.maximum(first, past - 1) if source.is_streamed else first
        found[first < after, column] = order[chosen[first < after]]
    return found


def _run(reports: _TickReports, begin: int, end: int, observed: Sequence[Samples], window: Window, period: int) -> Ticks | None:
    """Steps from decision `begin` up to what decision `end` saw, and beyond it if that acted and led to something."""
    times, seen, steps = reports.times[begin : end + 1], reports.seen[begin : end + 1], end - begin
    if reports.acts[end]:
        final = _final(observed, seen, window, period)
        if final is not None:
            times, seen, steps = np.append(times, times[-1] + period), np.vstack([seen, final]), steps + 1
    if steps == 0:
        return None
    places = np.arange(len(times)) * APART
    digests = (*reports.digests[begin : end + 1], "")[: len(times)]  # nobody decided on what came after the last decision
    return Ticks(np.maximum.accumulate(times - places) + places, (*seen.T, *reports.commands[begin : begin + steps].T), digests)


def _final(observed: Sequence[Samples], seen: np.ndarray, window: Window, period: int) -> np.ndarray | None:
    """What was there one control period after the last decision: of every topic a sample newer than those seen.

    By the end of the episode, where that is told; otherwise the first newer ones that were still on their way.
    """
    at = max(int(source.stamps[k]) for source, k in zip(observed, seen[-1], strict=True)) + round((1 + ROUNDING) * period)
    in_time = [_newer(s, k, at, window.stop) for s, k in zip(observed, seen[-1], strict=True)]
    latest = min(window.until, window.stop + period)
    late = [_newer(s, k, at + s.tolerance, latest) for s, k in zip(observed, seen[-1], strict=True)]
    # Slower than the policy: one that was seen twice may be seen once more.
    repeats = (np.diff(seen, axis=0) == 0).any(0)
    for choices, which in ((in_time, -1), (late, 0)):
        found = [own[which] if len(own) else k if again else -1 for own, k, again in zip(choices, seen[-1], repeats, strict=True)]
        if min(found) >= 0:
            return np.array(found)
    return None


def _newer(source: Samples, than: int, until: int, received: int) -> np.ndarray:
    """Positions of samples with later stamps, up to `until` and received before `received`, in the order of stamps."""
    own = np.flatnonzero((source.stamps > source.stamps[than]) & (source.stamps <= until) & (source.receive < received))
    return own[np.lexsort((source.receive[own], source.stamps[own]))]

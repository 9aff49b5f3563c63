"""Ticks, worked out by hand, and against a slow reading of the same rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer_datasets.rosbag.tick_sync import Stream, Ticks, synchronise

MS = 1_000_000


def stream(times_ms: list[float], tolerance_ms: float = 50, *, command: bool = False, topic: str = "/a") -> Stream:
    return Stream(topic, np.array([round(t * MS) for t in times_ms], np.int64), round(tolerance_ms * MS), command)


def in_ms(ticks: Ticks) -> list[float]:
    return (ticks.times / MS).tolist()


def test_ticks_start_with_the_latest_topic_and_take_the_latest_sample() -> None:
    a = stream([0, 40, 80, 120, 160, 200, 240])
    b = stream([70, 165, 175], 100, topic="/b")
    (run,), gaps = synchronise([a, b], 10)
    assert in_ms(run) == [70, 170]
    assert [s.tolist() for s in run.samples] == [[1, 4], [0, 1]]
    assert gaps == []


def test_a_sample_at_the_tick_counts_and_one_after_it_does_not() -> None:
    (run,), _ = synchronise([stream([0, 100, 200.000001, 210], 100)], 10)
    assert in_ms(run) == [0, 100, 200]
    assert run.samples[0].tolist() == [0, 1, 1]


def test_a_sample_as_old_as_the_tolerance_still_counts() -> None:
    (run,), gaps = synchronise([stream([0, 50, 200], 50)], 10)
    assert (in_ms(run), gaps) == ([0, 100, 200], [])
    runs, gaps = synchronise([stream([0, 49, 200], 50)], 10)
    assert runs == []
    assert [(g.topic, g.start, g.length) for g in gaps] == [("/a", 49 * MS, 151 * MS)]


def test_a_gap_parts_a_run() -> None:
    runs, gaps = synchronise([stream([0, 100, 200, 500, 600], 20)], 10)
    assert [in_ms(run) for run in runs] == [[0, 100, 200], [500, 600]]
    assert [(g.start / MS, g.length / MS) for g in gaps] == [(200, 300)]


def test_a_hole_between_ticks_costs_nothing() -> None:
    runs, gaps = synchronise([stream([0, 95, 200, 295, 300], 10)], 10)
    assert [in_ms(run) for run in runs] == [[0, 100, 200, 300]]
    assert gaps == []


def test_a_topic_that_dies_is_a_gap_but_one_that_ends_within_a_tick_of_the_others_is_not() -> None:
    alive = stream([0, 100, 200, 300, 400, 500], 50)
    runs, gaps = synchronise([alive, stream([0, 100, 200], 50, topic="/b")], 10)
    assert [in_ms(run) for run in runs] == [[0, 100, 200]]
    assert [(g.topic, g.start / MS, g.length / MS) for g in gaps] == [("/b", 200, 300)]
    _, gaps = synchronise([alive, stream([0, 100, 200, 300, 400], 50, topic="/b")], 10)
    assert gaps == []


def test_an_action_is_the_last_command_before_the_next_tick() -> None:
    observed = stream([0, 100, 200, 300], 50)
    commands = stream([20, 90, 100, 130, 230], 50, command=True, topic="/c")
    (run,), gaps = synchronise([observed, commands], 10)
    assert in_ms(run) == [0, 100, 200, 300]
    assert run.samples[1].tolist() == [1, 3, 4], "the command at 100 ms answers the observation at 100 ms"
    assert gaps == []


def test_a_command_may_be_as_late_as_the_step_and_as_old_as_its_tolerance() -> None:
    observed = stream([0, 100, 200, 300], 50)
    (run,), _ = synchronise([observed, stream([99.999999, 150], 50, command=True)], 10)
    assert run.samples[1].tolist() == [0, 1, 1], "150 ms is 50 ms before the step from 200 ms"
    (run,), gaps = synchronise([observed, stream([99.999999, 149], 50, command=True)], 10)
    assert in_ms(run) == [0, 100, 200]
    assert gaps == [], "the episode ends with its commands"


def test_missing_commands_in_between_are_a_gap() -> None:
    observed = stream([0, 100, 200, 300, 400], 50)
    runs, gaps = synchronise([observed, stream([10, 310], 50, command=True, topic="/c")], 10)
    assert [in_ms(run) for run in runs] == [[0, 100], [300, 400]]
    assert [(g.topic, g.start / MS, g.length / MS) for g in gaps] == [("/c", 10, 300)]


def test_a_command_that_holds_hides_no_gap() -> None:
    observed = stream([0, 100, 200, 500, 600], 50)
    runs, gaps = synchronise([observed, stream([10], 10_000, command=True, topic="/c")], 10)
    assert [in_ms(run) for run in runs] == [[0, 100, 200], [500, 600]]
    assert [(g.topic, g.start / MS) for g in gaps] == [("/a", 200)]


def test_equal_and_disordered_times() -> None:
    (run,), _ = synchronise([stream([0, 100, 100, 250, 200, 300], 50)], 10)
    assert run.samples[0].tolist() == [0, 2, 4, 5], "of equal times the one recorded last; in the order of time"


def test_an_absurd_time_costs_no_memory() -> None:
    runs, gaps = synchronise([stream([0, 100, 200, 2e12], 50), stream([0, 100, 200], 50, topic="/b")], 1000)
    assert sum(len(run.times) for run in runs) < 400
    assert {g.topic for g in gaps} == {"/a", "/b"}


@pytest.mark.parametrize("streams", [[stream([])], [stream([0, 100]), stream([5000, 5100], topic="/b")]])
def test_nothing_in_common_gives_nothing(streams: list[Stream]) -> None:
    assert synchronise(streams, 10)[0] == []


def test_thirds_of_a_second_do_not_drift() -> None:
    times = [round(k * 1e9 / 30) / MS for k in range(3000)]
    (run,), gaps = synchronise([stream(times, 1)], 30)
    assert run.samples[0].tolist() == list(range(3000))
    assert gaps == []


moments = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(moments, st.integers(1, 8), st.booleans()), min_size=1, max_size=3))
def test_runs_agree_with_a_slow_reading_of_the_rules(drawn: list[tuple[list[int], int, bool]]) -> None:
    """Times in units of a fifth of a tick; the first stream is always an observation."""
    streams = [stream([t * 20 for t in times], tol * 20, command=c and i > 0) for i, (times, tol, c) in enumerate(drawn)]
    origin = max(int(s.times.min()) for s in streams if not s.is_command)

    def latest(s: Stream, at: int) -> int | None:
        known = [(t, i) for i, t in enumerate(s.times.tolist()) if t <= at]
        return max(known)[1] if known else None

    def observed(tick: int) -> list[int | None]:
        at = origin + tick * 100 * MS
        places = [latest(s, at) for s in streams if not s.is_command]
        own = [s for s in streams if not s.is_command]
        return [p if p is not None and at - s.times[p] <= s.tolerance else None for p, s in zip(places, own, strict=True)]

    def commanded(tick: int) -> list[int | None]:
        at = origin + tick * 100 * MS
        own = [s for s in streams if s.is_command]
        places = [latest(s, at + 100 * MS - 1) for s in own]
        return [p if p is not None and at - s.times[p] <= s.tolerance else None for p, s in zip(places, own, strict=True)]

    until = max(int(s.times.max()) for s in streams if not s.is_command)
    ticks = [t for t in range(12) if origin + (t + 1) * 100 * MS <= until]
    good = [t for t in ticks if None not in (*observed(t), *observed(t + 1), *commanded(t))]
    runs, _ = synchronise(streams, 10)
    steps = [round((t - origin) / (100 * MS)) for run in runs for t in run.times[:-1].tolist()]
    assert steps == good
    for run in runs:
        for row, time in enumerate(run.times.tolist()):
            tick = round((time - origin) / (100 * MS))
            observations = [s[row] for s, own in zip(run.samples, streams, strict=True) if not own.is_command]
            assert observations == observed(tick)
            if row < len(run.times) - 1:
                assert [s[row] for s, own in zip(run.samples, streams, strict=True) if own.is_command] == commanded(tick)

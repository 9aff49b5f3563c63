import json
import re
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from qtransformer.errors import StorageError
from qtransformer.metrics import TIMED_EVERY, JsonLines, Meter, Metrics, Stopwatch, calibration_error, read_jsonl


def metrics(**means: tuple[float, float]) -> Metrics:
    m = Metrics({"data": 1.0})
    for name, (value, weight) in means.items():
        m.mean(name, torch.tensor(value), torch.tensor(weight))
    return m


def test_means_are_weighted_by_what_they_stand_for() -> None:
    meter = Meter()
    meter.add(metrics(q=(1.0, 3.0)))
    meter.add(metrics(q=(5.0, 1.0)))
    assert meter.read()["q"] == pytest.approx(2.0)
    assert meter.read() == {}, "a reading starts anew"


def test_a_mean_of_nothing_is_left_out_and_spoils_no_other() -> None:
    meter = Meter()
    meter.add(metrics(q=(float("nan"), 0.0), empty=(float("nan"), 0.0)))
    meter.add(metrics(q=(0.5, 2.0)))
    values = meter.read()
    assert values["q"] == 0.5
    assert "empty" not in values


def test_what_was_skipped_is_counted_and_spoils_no_mean() -> None:
    meter, bad = Meter(), metrics(q=(float("nan"), 1.0))
    bad.skipped = True
    for m in (metrics(q=(0.5, 1.0)), bad, metrics(q=(1.5, 1.0))):
        meter.add(m)
    assert {name: value for name, value in meter.read().items() if "/" not in name} == {"q": 1.0, "skipped": 1.0}
    meter.add(bad)
    assert "q" not in meter.read()


def test_seconds_are_per_update() -> None:
    meter = Meter()
    meter.add(Metrics({"data": 1.0, "target": 4.0}))
    meter.add(Metrics({"data": 3.0}))
    values = meter.read()
    assert values["seconds/data"] == 2.0
    assert values["seconds/target"] == 2.0


def test_sections_of_an_update_on_a_gpu_are_timed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each end of a section waits for the device; where nothing is timed, nothing waits and no mean is changed."""
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    meter = Meter()
    for step in range(TIMED_EVERY + 1):
        watch = Stopwatch(torch.device("cuda"), step)
        with watch.section("forward"):
            pass
        assert bool(watch.seconds) == (step in (0, TIMED_EVERY))
        meter.add(Metrics(watch.seconds))
        watch.seconds |= {"forward": 3.0} if watch.seconds else {}
    assert len(waits) == 4
    assert meter.read()["seconds/forward"] == 3.0
    for step in range(3):
        watch = Stopwatch(torch.device("cpu"), step)
        with watch.section("forward"):
            pass
        assert watch.seconds, "on a processor always"


def test_calibration_compares_prediction_and_outcome_bin_by_bin() -> None:
    """Bin [.2, .3): two predictions of .25, outcomes 1 and 0, |.5 - 1| = .5.
    Bin [.9, 1]: predictions .9 and 1, outcomes 1 and 1, .1. Together .6 / 4."""
    m = Metrics({})
    m.calibrate(torch.tensor([0.25, 0.25, 0.9, 1.0]), torch.tensor([1.0, 0.0, 1.0, 1.0]), 0.0, 1.0)
    assert m.calibration is not None
    assert calibration_error(m.calibration) == pytest.approx(0.15)
    assert m.calibration[:, 2].tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 0, 2]


def test_a_resumed_log_goes_on_after_the_step_it_resumes_from(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    for step in (1, 2, 3):
        log(step, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    log = JsonLines(path, resume_step=2)
    log(3, {"loss": 30.0})
    assert [(line["step"], line["loss"]) for line in read_jsonl(path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damaged_lines_of_a_log_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1.0}\n{"loss": 2.0}\n\xff\xfe\n[3]\n{"step": "4"}\n{"step": 5, "loss": 5.0}\n')
    assert [line["step"] for line in read_jsonl(path)] == [1, 5]
    JsonLines(path, resume_step=4)
    assert [line["step"] for line in read_jsonl(path)] == [1]


def test_a_log_that_cannot_begin_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*absent/metrics\.jsonl: No such file"):
        JsonLines(tmp_path / "absent" / "metrics.jsonl")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can be written beyond this size [B], which is how a full disk looks from inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_find_no_room_are_lost_and_told_of_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log(1, {"loss": 1.0})
    with room_for(path.stat().st_size + 5), warnings.catch_warnings(record=True) as told:  # the second is cut in the middle
        warnings.simplefilter("always")
        log(2, {"loss": 2.0})
        log(3, {"loss": 3.0})
    words = r"cannot write .*metrics\.jsonl: the disk is full.*free some space\. The line of step 2 is lost.*training goes on"
    assert len(told) == 1
    assert re.match(words, str(told[0].message))
    log(4, {"loss": 4.0})
    log(5, {"loss": 5.0})
    assert [line["step"] for line in read_jsonl(path)] == [1, 4, 5]


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "none.jsonl") == []

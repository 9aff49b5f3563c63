"""A few cases of the fuzz of `make fuzz`, and proof that it notices what it is there to notice."""

import os
import runpy
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.formats import FORMATS

FUZZ = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("run.py"))))


def test_every_format_has_a_sample() -> None:
    assert {sample.format for sample in FUZZ.SAMPLES} == {kind.name for kind in FORMATS}


@pytest.mark.parametrize("sample", FUZZ.SAMPLES, ids=lambda sample: sample.name)
def test_damage_is_refused_or_harmless(tmp_path: Path, sample) -> None:
    outcomes = list(FUZZ.fuzz(sample, range(20), 7, tmp_path / "fuzz"))
    assert [outcome.case for outcome in outcomes] == list(range(20))
    assert any(outcome.kind == "refused" for outcome in outcomes)


@pytest.fixture
def misread(monkeypatch):
    """Let reading a damaged dataset do something else; only the first, undamaged one is read as it is."""

    def patch(behave):
        calls = []

        def content(path, sample):
            calls.append(path)
            return "whole" if "pristine" in str(path) else behave()

        monkeypatch.setitem(FUZZ.fuzz.__globals__, "content", content)
        monkeypatch.setitem(FUZZ.fuzz.__globals__, "CPU_SECONDS", 0.2)

    return patch


def _endless() -> None:
    while True:
        pass


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda: "other", "case 0: different"),
        (lambda: _raise(KeyError("x")), "case 0: escaped KeyError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "crashed .*not contained"),
        (_endless, "hung .*not contained"),
    ],
)
def test_what_is_not_allowed_fails(tmp_path: Path, misread, monkeypatch, behave, message: str) -> None:
    misread(behave)
    monkeypatch.setitem(FUZZ.fuzz.__globals__, "verify", lambda *a, **k: SimpleNamespace(problems=[]))
    with pytest.raises(AssertionError, match=message):
        list(FUZZ.fuzz(FUZZ.SAMPLES[0], range(2), 0, tmp_path / "fuzz"))


def test_a_child_that_dies_costs_one_case(tmp_path: Path, misread, monkeypatch) -> None:
    misread(lambda: os.kill(os.getpid(), signal.SIGKILL))
    monkeypatch.setitem(FUZZ.fuzz.__globals__, "verify", lambda *a, **k: SimpleNamespace(problems=["crashed"]))
    outcomes = list(FUZZ.fuzz(FUZZ.SAMPLES[0], range(3), 0, tmp_path / "fuzz"))
    assert [(outcome.case, outcome.kind) for outcome in outcomes] == [(0, "crashed"), (1, "crashed"), (2, "crashed")]


def test_refusals_go_on(tmp_path: Path, misread) -> None:
    misread(lambda: _raise(DatasetError("no")))
    assert [outcome.kind for outcome in FUZZ.fuzz(FUZZ.SAMPLES[1], range(3), 0, tmp_path / "fuzz")] == ["refused"] * 3

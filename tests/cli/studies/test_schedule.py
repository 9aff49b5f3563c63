"""One process per cell: claims, collections, and trainings that another version began."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.side_by_side import Training
from qtransformer.cli.studies import record
from qtransformer.cli.studies.schedule import Folders, Schedule, claimed
from qtransformer.config import TrainConfig
from qtransformer_datasets.data_source import DataSource
from tests.cli.studies.tiny_study import CELL, TINY_STUDY


def test_a_claim_outlives_its_process_with_a_child_that_holds_it(tmp_path: Path) -> None:
    claim = claimed(tmp_path / "cell.lock")
    assert claim is not None
    assert claimed(tmp_path / "cell.lock") is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(claim,))
    os.close(claim)
    assert claimed(tmp_path / "cell.lock") is None
    child.communicate(b"\n")
    again = claimed(tmp_path / "cell.lock")
    assert again is not None
    os.close(again)


def test_a_cell_whose_episodes_are_gone_collects_them_before_it_looks_at_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(Folders(*(tmp_path / name for name in ("out", "runs", "data"))), ["cpu"], TINY_STUDY)
    monkeypatch.setattr(Schedule, "_collect", lambda *_: iter(["collects"]))
    run = schedule.training(CELL).run
    RunConfig(datasets=[DataSource(path=str(tmp_path / "data" / CELL.data_file))], train=TrainConfig()).save(run)
    assert next(schedule._stages(CELL, "cpu", 0)) == "collects"


def test_a_cell_that_another_version_goes_on_with_names_the_one_it_began_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    monkeypatch.setattr(Schedule, "_collect", lambda *_: iter(()))
    monkeypatch.setattr(Schedule, "_judge", lambda self, cell, training, device, version, claim: iter([judged.append(version)]))
    monkeypatch.setattr(Training, "is_complete", lambda training: True)
    for version in ("first", "second"):
        monkeypatch.setattr(record, "commit", lambda version=version: version)
        schedule = Schedule(Folders(*(tmp_path / name for name in ("out", "runs", "data"))), ["cpu"], TINY_STUDY)
        list(schedule._stages(CELL, "cpu", 0))
    assert judged == ["first", "first"]

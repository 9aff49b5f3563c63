"""Studies: a grid that is run once, cell by cell, in real processes."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtransformer.cli.compose import UsageError
from qtransformer.cli.main import main
from qtransformer.cli.settings import StudySettings
from qtransformer.cli.studies import cells, results
from qtransformer.cli.studies.cells import cells_of
from qtransformer.cli.studies.grids import STUDIES, Arm, Study
from qtransformer.cli.study import Plan, chosen_seeds, core_minutes, devices, expected_training_seconds
from tests.cli.console import wait_until
from tests.cli.studies.tiny_study import BC, CELL, DATA, SMALL, TINY_STUDY, Q


def planned(known: dict[str, Any], arms: tuple[Arm, ...] = TINY_STUDY.arms) -> Plan:
    return Plan(TINY_STUDY, {arm.name: list(cells_of(arm, None, 2, 100)) for arm in arms}, known, known.keys())


def test_first_seeds_of_all_arms_come_first_and_finished_cells_never() -> None:
    missing = planned({}).missing
    assert [(cell.seed, cell.config["algo"]) for cell in missing] == [(0, "q"), (0, "bc"), (1, "q")]
    assert planned({missing[1].identity: {}}).missing == [missing[0], missing[2]]


def test_two_arms_that_are_the_same_are_run_once() -> None:
    assert len(planned({}, (Q, replace(Q, name="again"))).missing) == 2


@pytest.mark.parametrize(("said", "seeds"), [("0", None), (0, None), ("2", [0, 1]), ([0, 3], [0, 3]), (["1"], [1])])
def test_seeds_are_a_number_or_a_list(said: Any, seeds: list[int] | None) -> None:
    assert chosen_seeds(said) == seeds


@pytest.mark.parametrize("said", ["-1", "x", [], [1, 1], [-1], ["x"], "1.5"])
def test_seeds_that_cannot_be_meant_are_refused(said: Any) -> None:
    with pytest.raises(UsageError, match="seeds="):
        chosen_seeds(said)


def test_time_is_estimated_from_finished_cells_of_the_algorithm() -> None:
    core, gpu = {"steps": "2", "command": "device=cpu"}, {"steps": "2", "command": "device=cuda:0"}
    rows = {
        "a": {"algo": "q", "train_seconds": "8", **core},
        "b": {"algo": "bc", "train_seconds": "100", **core},
        "c": {"algo": "q", "train_seconds": "1", **gpu},
    }
    others = expected_training_seconds(CELL, {}) - expected_training_seconds(CELL, {"a": {**rows["a"], "train_seconds": "0"}})
    assert others == pytest.approx(0.2 * 4), "nothing known: what is assumed of a step"
    assert expected_training_seconds(CELL, rows) - expected_training_seconds(
        CELL, {"a": {**rows["a"], "train_seconds": "0"}}
    ) == pytest.approx(4 * 4)


def test_minutes_of_a_core_are_those_of_cells_that_ran_on_one() -> None:
    rows = [{"train_seconds": "90", "command": "device=cpu"}, {"train_seconds": "6", "command": "device=cuda:0"}]
    assert core_minutes(rows) == 1.5
    assert np.isnan(core_minutes(rows[1:]))


@pytest.mark.parametrize("device", ["gpu", "cuda:1", "auto"])
def test_a_study_runs_on_cores_or_on_all_gpus(device: str) -> None:
    with pytest.raises(UsageError, match=f"device={device} is not known"):
        devices(StudySettings(name="tiny", device=device))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setitem(STUDIES, "tiny", TINY_STUDY)
    monkeypatch.setattr(cells, "VALIDATION_EPISODES", 1)
    return ["study", "tiny", "episodes=2", *(f"{key}={tmp_path / key}" for key in ("out", "runs", "data"))]


def start_study(study: Study, words: list[str]) -> subprocess.Popen[str]:
    """A process of its own, which knows this study."""
    code = (
        "import sys; from qtransformer.cli.main import main; from qtransformer.cli.studies.grids import *\n"
        "from qtransformer.cli.studies import cells; cells.VALIDATION_EPISODES = 1\n"
        f"STUDIES['tiny'] = {study!r}; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def test_dry_run_prints_the_plan_and_writes_nothing(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert "would run 3 cells on 2 files" in told
    assert " ".join(BC.overrides) in told
    assert "seeds 0, 1" in told
    assert main([*tiny, "dry_run=true", "seeds=[4]", "arms=[bc]"]) == 0
    assert "would run 1 cells on 1 files" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "baseline"]) == 2
    assert "did you mean baselines?" in capsys.readouterr().err
    assert main(["study", "baselines", "arms=[bk]", "dry_run=true"]) == 2
    assert main(["study"]) == 2


def test_a_report_needs_no_cell(tiny: list[str], tmp_path: Path) -> None:
    assert main([*tiny, "report_only=true"]) == 0
    assert not list(tmp_path.iterdir())


def test_two_studies_at_once_run_each_cell_once_and_one_that_fails_stops_none(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    broken = Arm("broken", "broken", (*SMALL, "init=nowhere"), DATA, seeds=1)
    study = replace(TINY_STUDY, arms=(broken, *TINY_STUDY.arms))
    processes = [start_study(study, [*tiny, "workers=2"]) for _ in range(2)]
    for told in [process.communicate()[0] for process in processes]:
        assert "Traceback" not in told
        assert "1 of 4 cells failed" in told
        assert "nowhere" in told.splitlines()[-1]
    assert [process.returncode for process in processes] == [1, 1]

    out = tmp_path / "out"
    assert len((out / results.CELLS).read_text().splitlines()) == 1 + 3
    rows = list(results.read_cells(out).values())
    assert sorted((row["algo"], row["seed"]) for row in rows) == [("bc", "0"), ("q", "0"), ("q", "1")]
    for row in rows:
        assert len(row["outcomes"]) == int(row["episodes"]) == 2
        assert float(row["success"]) == np.mean([mark == "1" for mark in row["outcomes"]])
        assert float(row["train_seconds"]) > 0
        assert row["command"].startswith("qtransformer train dataset=data/studies/expert_3_")
        assert not any(str(tmp_path) in value for value in row.values()), "no path of this machine"
    points = results.read_curves(out)
    assert points.keys() == {row["cell"] for row in rows}
    assert all(points[row["cell"]][-1]["validation_success"] for row in rows)
    for name in ("tiny.csv", "tiny.md", "tiny_success.png", "tiny_curves.png"):
        assert (out / name).stat().st_size > 100, name
    page = (tmp_path / "runs" / "tiny.html").read_text()
    assert "Is anything learned?" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "Q-learning − cloning" in (out / "tiny.md").read_text()

    before = (out / results.CELLS).read_bytes()
    assert main(tiny) == 0, "without the broken arm nothing is left to do"
    assert (out / results.CELLS).read_bytes() == before
    (out / "tiny.md").unlink()
    assert main([*tiny, "report_only=true"]) == 0
    assert "| cloning | 1 seed |" in (out / "tiny.md").read_text()


def test_a_study_that_probes_asks_cells_that_were_judged_before(tiny: list[str], tmp_path: Path) -> None:
    """The same training again where its checkpoint is gone; judged once all the same."""
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    judged, probed = (Study("tiny", "Is anything known?", (replace(Q, seeds=1),), probe=p) for p in (None, DATA))
    out = tmp_path / "out"
    for study in (judged, probed, probed):
        process = start_study(study, [*tiny, "workers=1"])
        told = process.communicate()[0]
        assert process.returncode == 0, told
        if study is judged:
            assert not (out / results.PROBES).exists()
            shutil.rmtree(next((tmp_path / "runs").glob("*/checkpoints")))
    assert len((out / results.CELLS).read_text().splitlines()) == 1 + 1
    [row] = results.read_probes(out, f"{DATA}, seed 900").values()
    assert row["cell"] in results.read_cells(out)
    assert not results.read_probes(out, "other episodes")
    assert float(row["trained"]) <= 1
    assert len((out / results.PROBES).read_text().splitlines()) == 1 + 1, "probed once"
    assert "Frozen features" in (out / "tiny.md").read_text()


def test_what_is_judged_on_two_splits_is_trained_once(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting is chosen on validation objects, and the choice judged on test objects."""
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    study = replace(TINY_STUDY, arms=(BC, replace(BC, name="chosen", split="validation")), pairs=())
    process = start_study(study, [*tiny, "workers=2"])
    told = process.communicate()[0]
    assert process.returncode == 0, told
    rows = list(results.read_cells(tmp_path / "out").values())
    assert sorted(row["split"] for row in rows) == ["test", "validation"]
    assert len({row["command"] for row in rows}) == 1
    [run] = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert (run / "train.log").read_text().count("trained to step") == 1
    assert {path.stem for path in run.glob("judged_*.json")} == {f"judged_{row['cell']}" for row in rows}


def test_a_study_whose_process_is_killed_goes_on(tiny: list[str], tmp_path: Path) -> None:
    """Its training is asked to end, and may be saving still when the study goes on: that waits for it."""
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    study = replace(TINY_STUDY, arms=(replace(BC, overrides=(*BC.overrides, "steps=100")),))
    process = start_study(study, tiny)
    wait_until(lambda: bool(list((tmp_path / "runs").glob("*/checkpoints/step_*"))), process)
    os.kill(process.pid, signal.SIGKILL)
    again = start_study(study, tiny)
    told = again.communicate()[0]
    process.communicate()
    assert again.returncode == 0, told
    [row] = results.read_cells(tmp_path / "out").values()
    assert row["steps"] == "100"
    log = next((tmp_path / "runs").glob("*/train.log")).read_text()
    assert log.count("trained to step 100") == 1
    assert len((tmp_path / "out" / results.CELLS).read_text().splitlines()) == 2

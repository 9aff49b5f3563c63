"""Studies: a grid that is run once, cell by cell, in real processes."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from console import TINY, kill_hard, wait_until

from qtransformer.cli.main import main
from qtransformer.cli.studies import grids, results
from qtransformer.cli.studies.cells import Cell, cells_of
from qtransformer.cli.studies.grids import STUDIES, Arm, Data, Study
from qtransformer.cli.studies.schedule import curve, training_seconds
from qtransformer.cli.study import in_order

DATA = Data("low", 6)
SMALL = (*TINY[:-2], "steps=4", "log_every=2", "model.tokens_per_image=2")
Q = Arm("q", "Q-learning", SMALL, DATA, seeds=2)
BC = Arm("bc", "cloning", (*SMALL, "algo=bc", "bc_filter_success=false"), DATA, seeds=1)
TINY_STUDY = Study("tiny", "Is anything learned?", (Q, BC), (("q", "bc"),))
CELL = Cell(DATA, SMALL, 0, "test", 2, 100)


def test_a_cell_is_what_its_result_follows_from() -> None:
    same = [
        replace(CELL, overrides=(*SMALL, "threads=2", "save_every=7", "keep_checkpoints=2")),
        replace(CELL, overrides=tuple(reversed(SMALL))),
        replace(CELL, overrides=(*SMALL, "algo=q")),  # the default, said
    ]
    other = [
        replace(CELL, overrides=(*SMALL, "optim.learning_rate=1e-4")),
        replace(CELL, overrides=(*SMALL, "targets.floor=none")),
        replace(CELL, seed=1),
        replace(CELL, data=Data("low", 7)),
        replace(CELL, data=Data("demo", 6)),
        replace(CELL, split="validation"),
        replace(CELL, episodes=3),
        replace(CELL, first_scene=101),
    ]
    assert {cell.identity for cell in same} == {CELL.identity}
    assert len({CELL.identity, *(cell.identity for cell in other)}) == 1 + len(other)


def test_every_arm_of_every_study_composes_and_none_is_there_twice() -> None:
    for study in STUDIES.values():
        identities = [cell.identity for arm in study.arms for cell in cells_of(arm, 1, 300, 0) if arm.split == "test"]
        assert len(identities) == len(set(identities)), study.name
        assert len({arm.name for arm in study.arms}) == len(study.arms)
        assert {name for pair in study.pairs for name in pair} <= {arm.name for arm in study.arms}


def test_two_studies_share_the_cells_they_have_in_common() -> None:
    ours = {c.identity for c in cells_of(grids.ABLATIONS.arms[0], 3, 300, 0)}
    assert ours <= {c.identity for c in cells_of(grids.BASELINES.arms[0], 5, 300, 0)}


def test_first_seeds_of_all_arms_come_first_and_finished_cells_never() -> None:
    wanted = {arm.name: list(cells_of(arm, 2, 2, 100)) for arm in TINY_STUDY.arms}
    order = in_order(wanted, {})
    assert [cell.seed for cell in order] == [0, 0, 1, 1]
    assert in_order(wanted, {order[1].identity: {}}) == [order[0], *order[2:]]


def test_rows_of_many_writers_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    code = (
        "import sys; from pathlib import Path; from qtransformer.cli.studies.results import append\n"
        f"for i in range(40): append(Path({str(path)!r}), ('cell', 'text'), [dict(cell=sys.argv[1] + str(i), text='a, \"b\"')])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    rows = results.read(path)
    assert sorted(row["cell"] for row in rows) == sorted(f"{name}{i}" for name in "abc" for i in range(40))
    assert {row["text"] for row in rows} == {'a, "b"'}


def test_a_line_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    results.append(path, ("cell", "step", "td_loss"), [{"cell": "a", "step": 1, "td_loss": 0.5}])
    with path.open("a") as file:
        file.write("b,2")
    assert [row["cell"] for row in results.read(path)] == ["a"]


def test_seconds_of_training_are_those_of_its_steps() -> None:
    config = {"optim": {"batch_segments": 16, "segment_steps": 8}}
    lines = [
        {"step": 50, "samples_per_second": 640.0},
        {"step": 50, "validation_success": 0.1},
        {"step": 100, "samples_per_second": 1280.0},
    ]
    assert training_seconds(lines, config) == pytest.approx(50 * 128 / 640 + 50 * 128 / 1280)


def test_curves_are_thinned_but_for_validations() -> None:
    lines = [{"step": s, "q_start": 0.1} for s in range(1, 201)] + [{"step": 173, "validation_success": 0.25}]
    points = curve("x", lines)
    assert len(points) <= 41
    assert [p["step"] for p in points if "validation_success" in p] == [173]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setitem(STUDIES, "tiny", TINY_STUDY)
    return ["study", "tiny", "episodes=2", *(f"{key}={tmp_path / key}" for key in ("out", "runs", "data"))]


def test_dry_run_prints_the_plan_and_writes_nothing(tiny: list[str], tmp_path: Path, capsys) -> None:
    assert main([*tiny, "dry_run=true"]) == 0
    told = capsys.readouterr().out
    assert "0 of 2 seeds done" in told
    assert "would run 3 cells" in told
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_answered_with_the_nearest(capsys) -> None:
    assert main(["study", "baseline"]) == 2
    assert "did you mean baselines?" in capsys.readouterr().err
    assert main(["study", "baselines", "arms=[bk]", "dry_run=true"]) == 2
    assert main(["study"]) == 2


def test_a_study_from_nothing_and_a_second_time(tiny: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    """Every cell is collected, trained, judged and told of once; a broken arm does not keep the others from ending."""
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    broken = Arm("broken", "broken", (*SMALL, "init=nowhere"), DATA, seeds=1)
    monkeypatch.setitem(STUDIES, "tiny", replace(TINY_STUDY, arms=(*TINY_STUDY.arms, broken)))
    assert main(tiny) == 1
    told = capsys.readouterr().out
    assert "failed: cell" in told
    assert "nowhere" in told
    with (tmp_path / "out" / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["algo"], row["seed"]) for row in sorted(rows, key=lambda r: (r["algo"], r["seed"]))] == [
        ("bc", "0"),
        ("q", "0"),
        ("q", "1"),
    ]
    for row in rows:
        assert len(row["outcomes"]) == int(row["episodes"]) == 2
        assert float(row["success"]) == np.mean([mark == "1" for mark in row["outcomes"]])
        assert row["command"].startswith("qtransformer train ")
        assert float(row["train_seconds"]) >= 0
    points = results.read(tmp_path / "out" / "curves.csv")
    assert {p["cell"] for p in points} == {row["cell"] for row in rows}
    for name in ("tiny.csv", "tiny.md", "tiny_success.png", "tiny_curves.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100, name
    assert "Is anything learned?" in (tmp_path / "runs" / "tiny.html").read_text()
    table = (tmp_path / "out" / "tiny.md").read_text()
    assert "Q-learning - cloning" in table

    monkeypatch.setitem(STUDIES, "tiny", TINY_STUDY)  # without the broken arm: nothing is left to do
    before = (tmp_path / "out" / "cells.csv").read_bytes()
    assert main(tiny) == 0
    assert (tmp_path / "out" / "cells.csv").read_bytes() == before


def test_a_killed_study_goes_on(tiny: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    arm = replace(BC, overrides=(*BC.overrides, "steps=40"))
    code = (
        "import sys; from qtransformer.cli.main import main; from qtransformer.cli.studies.grids import *\n"
        f"STUDIES['tiny'] = Study('tiny', 'q', ({arm!r},)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *tiny]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    wait_until(lambda: bool(list((tmp_path / "runs").glob("*/checkpoints/step_*"))), process)
    kill_hard(process)
    assert not results.read(tmp_path / "out" / "cells.csv")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    [row] = results.read(tmp_path / "out" / "cells.csv")
    [run] = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert (row["cell"], row["steps"]) == (run.name, "40")

"""Studies: a grid that is run once, cell by cell, in real processes."""

import json
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
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.settings import StudySettings
from qtransformer.cli.side_by_side import Training
from qtransformer.cli.studies import cells, grids, record, results
from qtransformer.cli.studies.cells import WITHOUT_CONSEQUENCE, Cell, cells_of, flat
from qtransformer.cli.studies.grids import STUDIES, Arm, Data, Study
from qtransformer.cli.studies.probing import as_trained_on
from qtransformer.cli.studies.record import curve_rows, training_seconds
from qtransformer.cli.studies.schedule import Folders, Schedule, claimed
from qtransformer.cli.study import Plan, chosen_seeds, core_minutes, devices, expected_training_seconds
from qtransformer.config import TrainConfig
from qtransformer.metrics import JsonLines
from qtransformer_datasets.data_source import DataSource
from tests.cli.console import TINY, wait_until

DATA = Data("expert", 3, ("image_size=16", "num_objects=1"))
SMALL = (*TINY[:-2], "steps=4", "log_every=2", "model.tokens_per_image=2")
Q = Arm("q", "Q-learning", SMALL, DATA, seeds=2)
BC = Arm("bc", "cloning", (*SMALL, "algo=bc", "bc_filter_success=false"), DATA, seeds=1)
TINY_STUDY = Study("tiny", "Is anything learned?", (Q, BC), (("q", "bc"),))
CELL = Cell(DATA, SMALL, 0, "test", 2, 100)


def test_a_cell_is_what_its_result_follows_from() -> None:
    same = [
        replace(CELL, overrides=(*SMALL, "threads=2", "save_every=7", "keep_checkpoints=2", "device=cuda")),
        replace(CELL, overrides=tuple(reversed(SMALL))),
        replace(CELL, overrides=(*SMALL, "algo=q")),  # the default, said
    ]
    trained_otherwise = [
        replace(CELL, seed=1),
        replace(CELL, data=replace(DATA, episodes=7)),
        replace(CELL, data=replace(DATA, recipe="demo")),
        replace(CELL, data=replace(DATA, collect=())),
        replace(CELL, data=replace(DATA, reading=("reward_noise=0.1",))),
        replace(CELL, data=replace(DATA, reading=("reward_noise=0.2",))),
    ]
    judged_otherwise = [replace(CELL, split="validation"), replace(CELL, episodes=3), replace(CELL, first_scene=101)]
    different = [CELL, *trained_otherwise, *judged_otherwise]
    assert {cell.identity for cell in same} == {CELL.identity}
    assert len({cell.identity for cell in different}) == len(different)
    assert {cell.run_name for cell in [*same, *judged_otherwise]} == {CELL.run_name}
    assert len({cell.run_name for cell in [CELL, *trained_otherwise]}) == 1 + len(trained_otherwise)


def test_every_setting_of_a_training_tells_cells_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    config, identities = CELL.config, {CELL.identity}
    for name, value in flat(config).items():
        group, _, key = name.rpartition(".")
        changed = json.loads(json.dumps(config))
        (changed[group] if group else changed)[key] = [value, "changed"]
        monkeypatch.setattr(Cell, "config", changed)
        assert (CELL.identity in identities) == (name in WITHOUT_CONSEQUENCE), name
        identities.add(CELL.identity)


def test_names_of_study_and_arm_do_not_tell_cells_apart() -> None:
    renamed = replace(Q, name="other", label="another label", seeds=5)
    assert [c.identity for c in cells_of(Q, [0, 1], 2, 100)] == [c.identity for c in cells_of(renamed, [0, 1], 2, 100)]
    ours = {c.identity for c in cells_of(grids.ABLATIONS.arms[0], None, 300, 0)}
    assert ours <= {c.identity for c in cells_of(grids.BASELINES.arms[0], None, 300, 0)}


def test_a_setting_added_later_leaves_cells_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "ADDED_LATER", {"optim.mirror": [], "cloning_steps": 0})
    before = {k: v for k, v in CELL.config.items() if k != "cloning_steps"}
    del before["optim"]["mirror"]
    now = CELL.identity
    assert replace(CELL, overrides=(*SMALL, "optim.mirror=[dx]")).identity != now
    monkeypatch.setattr(cells, "ADDED_LATER", {})
    monkeypatch.setattr(Cell, "config", before)
    assert CELL.identity == now, "as it was when neither setting was there"


def test_what_an_algorithm_does_not_read_leaves_its_cells_as_they_were() -> None:
    cloned, regressed = (replace(CELL, overrides=(*SMALL, f"algo={algo}")) for algo in ("bc", "mc"))

    def changed(cell: Cell, setting: str) -> bool:
        return replace(cell, overrides=(*cell.overrides, "targets.behavior_mask=0.1", setting)).identity != (
            replace(cell, overrides=(*cell.overrides, "targets.behavior_mask=0.1")).identity
        )

    assert [changed(cell, "targets.proposals=8") for cell in (cloned, regressed, CELL)] == [False, True, True]
    assert [changed(cell, "targets.bootstrap_proposals=2") for cell in (cloned, regressed, CELL)] == [False, False, True]


def test_a_trainings_command_says_what_its_preset_means(tmp_path: Path) -> None:
    """A preset may change before a training begins, or before somebody repeats it."""
    for arm in (grids.BASELINES.arms[0], Q):
        cell = next(cells_of(arm, [0], 300, 0))
        words = [word for word in cell.train_arguments(tmp_path, "cpu") if not word.startswith("dataset=")]
        assert not any(word.startswith("preset=") for word in words)
        assert replace(cell, overrides=tuple(words)).identity == cell.identity


def test_committed_cells_are_what_their_overrides_say() -> None:
    known = results.read_cells(Path(__file__).parents[2] / "docs" / "studies")
    assert known
    arms = {str(arm.data): arm.data for study in STUDIES.values() for arm in study.arms}
    for row in known.values():
        data, _, seed = row["data"].rpartition(", seed ")
        scenes = (row["split"], int(row["episodes"]), int(row["first_scene"]))
        cell = Cell(arms[data], tuple(row["overrides"].split()), int(seed), *scenes)
        assert cell.identity == row["cell"]
        assert row["overrides"] in row["command"]


def test_every_arm_of_every_study_composes_and_none_is_there_twice() -> None:
    for study in STUDIES.values():
        identities = [cell.identity for arm in study.arms for cell in cells_of(arm, [0], 300, 0)]
        assert len(identities) == len(set(identities)), study.name
        assert len({arm.name for arm in study.arms}) == len(study.arms)
        assert {name for pair in study.pairs for name in pair} <= {arm.name for arm in study.arms}


def test_what_a_training_is_told_says_all_that_differs_from_the_defaults() -> None:
    cell = next(cells_of(grids.ABLATIONS.arms[0], [0], 300, 0))
    assert replace(cell, overrides=tuple(cell.differences.split())).identity == cell.identity, "a preset may change; this does not"


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


def test_rows_of_many_writers_all_arrive(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    code = (
        "import sys; from pathlib import Path; from qtransformer.cli.studies.results import append, CURVE_FIELDS\n"
        f"for i in range(40): append(Path({str(path)!r}), CURVE_FIELDS, [dict(cell=sys.argv[1], step=i, q_start='a, \"b\"' * 200)])"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    curves = results.read_curves(tmp_path)
    assert {name: [int(row["step"]) for row in rows] for name, rows in curves.items()} == {name: list(range(40)) for name in "abc"}
    assert {row["q_start"] for rows in curves.values() for row in rows} == {'a, "b"' * 200}


def point(cell: str, step: int, q_start: str = "0.5") -> dict[str, object]:
    return {"cell": cell, "step": step, "q_start": q_start}


@pytest.mark.parametrize("torn", ["b,2", "b,2,,0.5,,,,0.1", "b,2,,0.5,,,", 'b,2,,"a, ', ""])
def test_a_line_cut_off_by_a_kill_is_passed_over_and_swallows_nothing(torn: str, tmp_path: Path) -> None:
    path = tmp_path / results.CURVES
    results.append(path, results.CURVE_FIELDS, [point("a", 1)])
    with path.open("a") as file:
        file.write(torn)
    assert list(results.read_curves(tmp_path)) == ["a"]
    results.append(path, results.CURVE_FIELDS, [point("c", 3)])
    assert list(results.read_curves(tmp_path)) == ["a", "c"]
    assert torn == "" or torn not in path.read_text()


def test_a_curve_told_twice_counts_once_and_is_in_order(tmp_path: Path) -> None:
    for rows in ([point("a", 2), point("a", 1)], [point("a", 2, "0.7")]):
        results.append(tmp_path / results.CURVES, results.CURVE_FIELDS, rows)
    assert [(row["step"], row["q_start"]) for row in results.read_curves(tmp_path)["a"]] == [("1", "0.5"), ("2", "0.7")]


def test_another_table_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells.csv").write_text("cell,success\na,1\n")
    assert main(["study", "stitching", f"out={tmp_path}", "dry_run=true"]) == 1
    assert "expected the columns" in capsys.readouterr().err


def test_seconds_of_training_are_those_of_its_steps() -> None:
    config = {"optim": {"batch_segments": 16, "segment_steps": 8}}
    lines = [
        {"step": 50, "samples_per_second": 640.0},
        {"step": 50, "validation_success": 0.1},
        {"step": 100, "samples_per_second": 1280.0},
    ]
    assert training_seconds(lines, config) == pytest.approx(50 * 128 / 640 + 50 * 128 / 1280)


@pytest.mark.parametrize("steps", [3, 39, 40, 41, 200, 1000])
def test_curves_are_thinned_but_for_validations(steps: int, tmp_path: Path) -> None:
    log, validated = JsonLines(tmp_path / "metrics.jsonl"), [max(1, steps * i // 5) for i in range(1, 6)]
    for step in range(1, steps + 1):
        log(step, {"q_start": 0.1, "unheard_of": 1.0})
        if step in validated:
            log(step, {"validation_success": 0.25})
    rows = curve_rows("x", tmp_path)
    assert len(rows) == min(steps, 40)
    assert [row["step"] for row in rows] == sorted({int(str(row["step"])) for row in rows})
    assert [row["step"] for row in rows if "validation_success" in row] == sorted(set(validated))
    assert rows[-1]["step"] == steps
    assert set(rows[-1]) == {"cell", "step", "q_start", "validation_success"}


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


def test_a_cell_is_probed_on_rewards_as_it_was_trained_on(dataset: Path, tmp_path: Path) -> None:
    said = {"path": str(tmp_path / "own.hdf5"), "reward_scale": 3.0, "step_reward": -1.0}
    RunConfig(datasets=[DataSource.parse(said)], train=TrainConfig()).save(tmp_path)
    checkpoint = tmp_path / "checkpoints" / "step_0000004"
    logged = DataSource(path=str(dataset)).open()
    for read, episode in zip(as_trained_on(str(dataset), str(checkpoint)), logged, strict=True):
        assert np.array_equal(read.rewards, 3 * episode.rewards - 1)


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

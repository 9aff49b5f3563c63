"""`eval dataset=...`: checkpoints judged from logs, in a process that has no simulator."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli.main import main
from tests.cli.console import ACTION, write_dataset

QUICK = ["device=cpu", "critic_steps=2", "fqe_steps=2"]
WITHOUT_SIMULATOR = """
import sys
sys.modules["pybullet"] = sys.modules["qtransformer_sim"] = None
from qtransformer.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_checkpoints_are_judged_without_a_simulator(trained: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "judged.json"
    arguments = ["eval", f"dataset={dataset}", f"run=[{trained}]", f"json={out}", *QUICK]
    done = subprocess.run([sys.executable, "-c", WITHOUT_SIMULATOR, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["selected_by"] == "likelihood_gap"
    assert [Path(c["checkpoint"]).name for c in result["checkpoints"]] == ["step_0000002", "step_0000004"]
    scores = [c["scores"]["likelihood_gap"] for c in result["checkpoints"]]
    assert result["best"] == result["checkpoints"][scores.index(max(scores))]["checkpoint"]
    lines = done.stdout.splitlines()
    assert "likelihood_gap" in lines[0]
    assert [line.split()[-11] for line in lines if line.startswith("*")] == ["trained/" + Path(result["best"]).name]
    assert lines[-1].startswith(f"best by likelihood_gap: {result['best']}")


def test_the_best_checkpoint_of_every_run_can_be_selected(trained: Path, dataset: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        shutil.copytree(trained, run)
    assert main(["eval", f"dataset=[{dataset}]", f"run=[{runs[0]},{runs[1]}]", "select=true", "fqe_steps=0", "device=cpu"]) == 0
    for run in runs:
        pointer = json.loads((run / "checkpoints" / "best.json").read_text())
        assert resolve_checkpoint(run).name == pointer["step"]
        assert isinstance(pointer["likelihood_gap"], float)


def test_nothing_is_selected_unasked(trained: Path, dataset: Path) -> None:
    assert main(["eval", f"dataset={dataset}", f"run={trained}", "fqe_steps=0", "device=cpu"]) == 0
    assert not (trained / "checkpoints" / "best.json").exists()


def test_datasets_are_said_as_for_training(trained: Path, dataset: Path, tmp_path: Path) -> None:
    scores = []
    for number, scale in enumerate((1, 100)):
        out = tmp_path / f"{number}.json"
        words = [f"dataset={{path: '{dataset}', reward_scale: {scale}}}", f"run={trained}", "fqe_steps=0", "device=cpu"]
        assert main(["eval", *words, f"json={out}"]) == 0
        result = json.loads(out.read_text())
        assert result["dataset"] == [str(dataset.absolute())]
        scores.append([c["scores"]["calibration_error"] for c in result["checkpoints"]])
    assert scores[0] != scores[1], "the option has reached the reader"


def test_a_dry_run_only_says_what_it_would_do(trained: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", f"dataset={dataset}", f"run={trained}", "dry_run=true", *QUICK]) == 0
    assert capsys.readouterr().out.startswith("would judge 2 checkpoints of ")


def test_another_robots_episodes_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_dataset(tmp_path / "other.hdf5", action=replace(ACTION, low=(-0.07, 0.0)))
    assert main(["eval", f"dataset={other}", f"run={trained}", *QUICK]) == 1
    answer = capsys.readouterr().err
    assert "step_0000002 on" in answer
    assert "other.hdf5 does not fit: action lower limits: expected (-0.05, 0.0), found (-0.07, 0.0)" in answer


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["run="], 2, "run: expected a path or a list of paths"),
        (["run=[]"], 2, "run: expected a path or a list of paths"),
        (["run=nowhere"], 1, "no checkpoint in nowhere"),
        (["actor=expert", "run=nowhere"], 2, "leave actor out"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    arguments: list[str], code: int, answer: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", f"dataset={dataset}", *arguments, *QUICK]) == code
    assert answer in capsys.readouterr().err


def test_several_runs_act_one_at_a_time(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", f"run=[{trained},{trained}]", "env=tests.cli.toy_env:ToyEnv"]) == 2
    assert "judged together only from logs" in capsys.readouterr().err

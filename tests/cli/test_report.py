"""`qtransformer report`: a page for a run of one's own."""

import json
import shutil
from pathlib import Path

import pytest

from qtransformer.cli.main import main
from qtransformer.evaluate import EpisodeResult, Evaluation


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("named_by", ["run", "checkpoint"])
def test_a_training_has_a_page_of_its_curves(named_by: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = run if named_by == "run" else next((run / "checkpoints").glob("step_*"))
    assert main(["report", f"run={named}"]) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "report.html"
    page = (run / "report.html").read_text()
    assert "4 gradient steps" in page
    assert "Losses" in page
    assert "Not evaluated yet" in page
    assert (run / "plots" / "learning.png").stat().st_size > 1000


def test_what_eval_found_is_on_the_page(run: Path) -> None:
    results = tuple(EpisodeResult(seed=i, success=i < 3, steps=5, reward=float(i < 3), terminated=True) for i in range(4))
    (run / "evaluations").mkdir()
    (run / "evaluations" / "qtransformer.json").write_text(json.dumps(Evaluation(results=results, seconds=1.0).to_dict()))
    assert main(["report", f"run={run}"]) == 0
    page = (run / "report.html").read_text()
    assert "Not evaluated yet" not in page
    assert "over 4 episodes" in page


def test_what_is_no_run_is_refused(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "nothing", dataset):
        assert main(["report", f"run={path}"]) == 1
        assert "expected a run with config.json or metrics.jsonl, found neither" in capsys.readouterr().err
        assert not (path / "report.html").exists()

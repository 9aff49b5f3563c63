"""The demonstration, small: it ends with the line that scripts read, and a second time nothing is done again."""

import json
import re
from pathlib import Path

import pytest

from qtransformer.cli.main import main
from tests.cli.console import kill_hard, qtransformer, start, wait_until

pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")


def test_dry_run_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"out={tmp_path}/run", f"data={tmp_path}/d.hdf5", "dry_run=true"]) == 0
    assert "algo=bc" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_demo_goes_on_and_ends_with_its_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = [f"out={out}", f"data={tmp_path}/d.hdf5", "episodes=12", "steps=40", "eval_episodes=2", "videos=1", "device=cpu"]
    process = start("demo", *small)
    wait_until(lambda: (out / "metrics.jsonl").exists(), process)
    kill_hard(process)  # the whole group, trainings included
    result = qtransformer("demo", *small)
    assert result.code == 0, result.err
    assert re.fullmatch(r"success \d\.\d\d \[\d\.\d\d, \d\.\d\d\] over 2 held-out episodes", result.out.splitlines()[-1])
    for name in ("qtransformer", "bc", "expert", "random"):
        found = json.loads((out / "evaluations" / f"{name}.json").read_text())
        assert (found["name"], found["episodes"], [r["seed"] for r in found["results"]]) == (name, 2, [1000, 1001])
    assert json.loads((out / "data.json").read_text())["episodes"] == 12
    assert (out / "report.html").exists()
    assert list((out / "videos").glob("*.mp4"))
    results = {path: path.stat().st_mtime_ns for path in (out / "evaluations").iterdir()}
    assert qtransformer("demo", *small).out.splitlines()[-1] == result.out.splitlines()[-1]
    assert results == {path: path.stat().st_mtime_ns for path in (out / "evaluations").iterdir()}
    other = qtransformer("demo", *small, "steps=50")
    assert other.code == 1
    assert "steps: there 40, asked for 50" in other.error
    (tmp_path / "d.hdf5").unlink()  # as somebody does who is told that the data are others
    other = qtransformer("demo", *small, "episodes=10")
    assert other.code == 1
    assert f"{out} was made of 12 episodes" in other.error

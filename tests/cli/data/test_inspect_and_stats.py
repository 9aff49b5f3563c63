"""`data inspect` and `data stats`: what they print, and what they save."""

import json
from pathlib import Path

import numpy as np
import pytest

from qtransformer_datasets import open_episodes


def test_inspect_prints_and_saves(run, dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", str(dataset), f"json={tmp_path}/new/i.json")
    assert code == 0
    assert "episodes      8" in out
    numbers = json.loads((tmp_path / "new" / "i.json").read_text())
    assert (numbers["episodes"], numbers["steps"], numbers["success"]["rate"]) == (8, 48, 0.5)
    assert [column["name"] for column in numbers["actions"]] == ["dx", "close"]


def test_inspect_of_what_cannot_be_read_fails(run, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "low.hdf5").write_bytes(dataset.read_bytes())
    code, out, _ = run("inspect", str(tmp_path))
    assert code == 1
    assert "found a folder that holds low.hdf5; name one" in out
    code, _, err = run("inspect", f"{tmp_path}/lwo.hdf5")
    assert code == 1
    assert f"found nothing; did you mean {tmp_path}/low.hdf5?" in err
    (tmp_path / "ci2.hdf5.partial").mkdir()
    (tmp_path / "ci2.hdf5.partial" / "recipe.json").write_text("{}")
    code, _, err = run("inspect", f"{tmp_path}/ci2.hdf5")
    assert code == 1
    assert "ci2.hdf5: not finished, its episodes lie in" in err


def test_stats_of_dimensions_in_robot_units(run, dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("stats", str(dataset), f"json={tmp_path}/s.json")
    assert code == 0
    assert "q99" in out
    numbers = json.loads((tmp_path / "s.json").read_text())
    dx = np.concatenate([e.actions[:, 0] for e in open_episodes(dataset)]).astype(float) * 0.05
    column = numbers["actions"][0]
    assert [column[k] for k in ("mean", "std", "q10", "max")] == pytest.approx(
        [dx.mean(), dx.std(), np.quantile(dx, 0.1), dx.max()]
    )
    pixels = np.concatenate([e.images["wrist"] for e in open_episodes(dataset)]).reshape(-1, 3).astype(float)
    assert numbers["cameras"]["wrist"]["mean"] == pytest.approx(pixels.mean(0))
    assert numbers["cameras"]["wrist"]["std"] == pytest.approx(pixels.std(0))
    assert numbers["instructions"][""]["episodes"] == 8

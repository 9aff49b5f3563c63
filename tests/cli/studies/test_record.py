"""What is recorded of a training: its command, its seconds, its curve."""

from dataclasses import replace
from pathlib import Path

import pytest

from qtransformer.cli.studies import grids
from qtransformer.cli.studies.cells import cells_of
from qtransformer.cli.studies.record import curve_rows, training_seconds
from qtransformer.metrics import JsonLines
from tests.cli.studies.tiny_study import Q


def test_a_trainings_command_says_what_its_preset_means(tmp_path: Path) -> None:
    """A preset may change before a training begins, or before somebody repeats it."""
    for arm in (grids.BASELINES.arms[0], Q):
        cell = next(cells_of(arm, [0], 300, 0))
        words = [word for word in cell.train_arguments(tmp_path, "cpu") if not word.startswith("dataset=")]
        assert not any(word.startswith("preset=") for word in words)
        assert replace(cell, overrides=tuple(words)).identity == cell.identity


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

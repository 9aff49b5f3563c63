"""`calibrate`: what is asked of the simulator, what is written, and what a policy without successes is told."""

import json
from pathlib import Path

import pytest

from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli import calibrate
from qtransformer.cli.main import main
from qtransformer.cli.settings import EvalSettings
from qtransformer.evaluate import EpisodeResult, Evaluation
from tests.cli.console import TINY, qtransformer

pytest.importorskip("pybullet", reason="needs the simulator", exc_type=ImportError)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the simulator after three steps, which lifts nothing."""
    folder = tmp_path_factory.mktemp("calibrate")
    data, run = folder / "data.hdf5", folder / "run"
    for arguments in (
        ["collect", f"out={data}", "episodes=4", "recipe=expert", "workers=1", "max_steps=12"],
        ["train", f"dataset={data}", f"run={run}", "steps=3", "save_every=3", *TINY],
    ):
        result = qtransformer(*arguments)
        assert result.code == 0, result.err
    return run


def test_a_policy_that_never_succeeds_is_told_how_many_successes_it_takes(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", f"run={trained}", "episodes=2", "workers=1", "device=cpu"]) == 1
    assert "need 19 successful episodes to calibrate on, found 0" in capsys.readouterr().err
    assert not (trained / calibrate.FILE).exists()


def test_it_calibrates_on_validation_and_measures_on_test_objects(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[EvalSettings] = []

    def act(settings: EvalSettings, *_: object) -> Evaluation:
        asked.append(settings)
        lows = [0.01 * i for i in range(1, 40)] if len(asked) == 1 else [0.015, 0.5, 0.6, 0.7]
        results = [
            EpisodeResult(seed=i, success=True, steps=2, reward=1.0, terminated=True, values=(v, 0.9)) for i, v in enumerate(lows)
        ]
        results.append(EpisodeResult(seed=99, success=False, steps=5, reward=0.0, terminated=True, values=(0.0,) * 5))
        return Evaluation(results=tuple(results), seconds=0.0)

    monkeypatch.setattr(calibrate, "evaluate_in_parallel", act)
    how = ["acting.proposals=4", "acting.behavior_mask=0.1"]
    assert main(["calibrate", f"run={trained}", "episodes=40", "seed=7", "device=cpu", *how]) == 0
    assert [s.acting for s in asked] == [ActingConfig(proposals=4, behavior_mask=0.1)] * 2
    assert [(s.split.value, s.seed, s.episodes) for s in asked] == [("validation", 7, 40), ("test", 47, 40)]
    assert {s.run for s in asked} == {str(resolve_checkpoint(trained))}, "the same both times, though the run may go on"
    found = json.loads((trained / calibrate.FILE).read_text())
    assert found["acting"] == {"proposals": 4, "behavior_mask": 0.1, "surprise": 0.0}, "the threshold holds for it alone"
    assert found["not_as_trained"] == "proposals=4 (trained: 0), behavior_mask=0.1 (trained: 0.3)"
    assert found["threshold"] == 0.02  # floor(.05 * 40) = 2nd smallest of 39
    assert found["measured_on_test_objects"]["false_stops"] == 0.25
    assert found["measured_on_test_objects"]["caught"] == 1.0
    told = capsys.readouterr().out
    assert "threshold 0.0200 for 0.05 false stops, acting by proposals=4 (trained: 0), behavior_mask=0.1 (trained: 0.3): " in told

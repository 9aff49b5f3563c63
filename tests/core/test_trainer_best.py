"""Which checkpoint counts as the best."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from qtransformer import Policy, Trainer
from qtransformer.checkpoint import best_scores, set_best
from qtransformer.errors import ConfigError
from tests.core.trainings import Killed, killed_at


@pytest.fixture
def validated(monkeypatch) -> Callable[[list[float]], None]:
    """Let validation give these success rates, one checkpoint after the other."""

    def give(rates: list[float]) -> None:
        results = iter(rates)
        monkeypatch.setattr("qtransformer.best_checkpoint.evaluate", lambda *a, **k: SimpleNamespace(success=next(results)))

    return give


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ([0.2, 0.6, 0.5, 0.55], 4),  # with 200 episodes, a standard error of about .049
        ([0.2, 0.6, 0.5, 0.56], 8),
        ([0.6, 0.56, 0.52, 0.3], 4),  # below the highest by more than that, though not below the one before
        ([0.1, 0.3, 0.3, 0.2], 6),
        ([0.0, 0.0, 0.0, 0.0], 8),
        ([0.9, 0, 0, 0], 2),
    ],
)
def test_the_best_checkpoint_is_the_newest_that_is_no_worse_than_the_highest_before_it(
    rates, best, fit, make_config, validated
) -> None:
    validated(rates)
    run = fit(make_config(save_every=2, eval_episodes=200, keep_checkpoints=1), eval_env=SimpleNamespace())
    assert json.loads((run / "checkpoints" / "best.json").read_text())["step"] == f"step_{best:07d}"
    kept = sorted(p.name for p in (run / "checkpoints").glob("step_*"))
    assert kept == sorted({f"step_{best:07d}", "step_0000008"}), "the newest and the best are kept"
    weights = load_file(run / "checkpoints" / f"step_{best:07d}" / "model.safetensors")
    loaded = Policy.from_checkpoint(run, device="cpu")
    assert all(torch.equal(v, loaded.network.state_dict()[k]) for k, v in weights.items())


def test_the_best_score_survives_a_resume(fit, make_config, validated, dataset) -> None:
    config = make_config(save_every=2, eval_episodes=200)
    validated([0.8, 0.1])
    with pytest.raises(Killed):
        fit(config, data=killed_at(dataset, 5), eval_env=SimpleNamespace())
    validated([0.5, 0.6])
    run = fit(config, eval_env=SimpleNamespace(), resume=True)
    assert json.loads((run / "checkpoints" / "best.json").read_text())["step"] == "step_0000002"


def test_the_best_is_named_though_saving_it_was_killed(fit, make_config, validated, monkeypatch) -> None:
    config, named = make_config(save_every=2, eval_episodes=200), []

    def killed(root: Path, checkpoint: Path, **scores: float) -> None:
        named.append(checkpoint.name)
        if len(named) == 2:
            raise Killed
        set_best(root, checkpoint, **scores)

    monkeypatch.setattr("qtransformer.best_checkpoint.set_best", killed)
    validated([0.2, 0.8])
    with pytest.raises(Killed):
        fit(config, eval_env=SimpleNamespace())
    validated([0.1, 0.3])
    run = fit(config, eval_env=SimpleNamespace(), resume=True)
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert best == {"step": "step_0000004", "validation_success": 0.8}


def test_a_best_that_was_selected_from_a_log_survives_a_resume(fit, make_config, validated) -> None:
    config = make_config(save_every=4, eval_episodes=200)
    validated([0.2, 0.8])
    run = fit(config, eval_env=SimpleNamespace())
    root = run / "checkpoints"
    set_best(root, root / "step_0000004", likelihood_gap=1.0)
    fit(config, eval_env=SimpleNamespace(), resume=True)
    assert best_scores(root) == {"step": "step_0000004", "likelihood_gap": 1.0}


def test_a_run_names_the_very_checkpoint_that_is_its_best(make_config, dataset, validated, tmp_path) -> None:
    validated([0.9, 0, 0, 0])
    config = make_config(save_every=2, eval_episodes=200)
    run = Trainer(config, dataset, tmp_path, eval_env=SimpleNamespace(), progress=False).fit()  # pyright: ignore[reportArgumentType]
    assert run.best == tmp_path / "checkpoints" / "step_0000002"
    assert Policy.from_checkpoint(run.best, device="cpu").config.steps == config.steps


def test_validation_asks_for_an_environment(fit, make_config) -> None:
    with pytest.raises(ConfigError, match="eval_env"):
        fit(make_config(eval_episodes=3))


def test_a_validation_that_raises_costs_its_number_and_no_checkpoint(fit, make_config, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("GL context lost")

    monkeypatch.setattr("qtransformer.best_checkpoint.evaluate", broken)
    with pytest.warns(UserWarning, match="validation at step 4 failed, .*GL context lost"):
        run = fit(make_config(eval_episodes=5), eval_env=SimpleNamespace())
    assert sorted(p.name for p in (run / "checkpoints").glob("step_*")) == ["step_0000004", "step_0000008"]
    assert not (run / "checkpoints" / "best.json").exists()

"""The range of values: found in the data, widened where targets ask for more, part of the artefact."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtransformer import Policy, Trainer
from qtransformer.metrics import read_jsonl
from qtransformer_datasets import EpisodeDataset
from tests.core.trainings import Killed, everything, killed_at


def rewarded(make_dataset, make_episode, scale: float = 1.0, cost: float = 0.0) -> EpisodeDataset:
    """The usual episodes with a success worth `scale` and a cost of every step."""
    ends = ("terminated", "truncated")
    plain = [make_episode(3 + i % 4, i, end=ends[i // 2 % 2]) for i in range(12)]
    return make_dataset([replace(e, rewards=(scale * e.rewards - cost).astype(np.float32)) for e in plain])


@pytest.fixture
def widening(monkeypatch) -> None:
    """Decisions on the range at steps 3, 6, ...: successes cut by a time limit ask for more than 1."""
    monkeypatch.setattr("qtransformer.value_heads.support.WINDOW", 3)


def learned_value(run: Path, step: int = 8) -> dict[str, Any]:
    return json.loads((run / "checkpoints" / f"step_{step:07d}" / "config.json").read_text())["value"]


@pytest.mark.parametrize("kind", ["hl_gauss", "c51", "mse"])
@pytest.mark.usefixtures("widening")
def test_a_range_that_widened_resumes_bit_for_bit_and_is_part_of_the_artefact(kind, fit, make_config, dataset) -> None:
    """Killed within a window, the counts of which are stored as well."""
    config = make_config(value={"kind": kind})
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, 7))
    assert everything(fit(config, "cut", resume=True)) == everything(whole)
    assert learned_value(whole, 4)["v_max"] == 1.5
    assert learned_value(whole) == learned_value(whole, 4), "nothing lies beyond it any more"
    assert json.loads((whole / "config.json").read_text())["value"]["v_max"] is None, "the run's own settings stay open"
    policy = Policy.from_checkpoint(whole, device="cpu")  # replays the golden sample
    assert (policy.network.value_head.v_min, policy.network.value_head.v_max) == (0.0, 1.5)
    lines = read_jsonl(whole / "metrics.jsonl")
    assert [line["v_max"] for line in lines] == [1.0, 1.25, 1.5, 1.5], "means of two steps"
    assert [line["clipped_high"] > 0 for line in lines] == [True, True, False, False]


@pytest.mark.usefixtures("widening")
def test_an_end_that_is_fixed_does_not_widen(fit, make_config) -> None:
    assert learned_value(fit(make_config(value={"v_max": 1.0})))["v_max"] == 1.0


@pytest.mark.usefixtures("widening")
def test_a_sparse_success_is_learned_bit_for_bit_as_on_a_fixed_range(fit, make_config, make_dataset, make_episode) -> None:
    sparse = make_dataset([make_episode(3 + i % 4, i) for i in range(8)])
    found = fit(make_config(), "open", data=sparse)
    assert everything(found) == everything(
        fit(make_config(value={"v_min": 0.0, "v_max": 1.0, "initial": 0.05}), "fixed", data=sparse)
    )
    assert learned_value(found)["v_max"] == 1.0


@pytest.mark.parametrize("kind", ["hl_gauss", "two_hot", "c51", "mse"])
def test_rewards_of_a_hundred_are_learned_as_rewards_of_one(kind, fit, make_config, make_dataset, make_episode) -> None:
    """Nobody says anything of the scale, yet losses are the same; and bit for bit those on the range that fits."""
    hundred = rewarded(make_dataset, make_episode, 100.0)
    config = make_config(value={"kind": kind})
    ones, found = fit(config, "ones", data=rewarded(make_dataset, make_episode)), fit(config, "hundred", data=hundred)
    tuned = make_config(value={"kind": kind, "v_min": 0.0, "v_max": 100.0, "initial": 5.0})
    fixed = fit(tuned, "fixed", data=hundred)
    assert (learned_value(found)["v_min"], learned_value(found)["v_max"], learned_value(found)["initial"]) == (0.0, 100.0, 5.0)
    model = ("checkpoints/step_0000008/model.safetensors",)
    assert all((found / name).read_bytes() == (fixed / name).read_bytes() for name in model)
    for a, b in zip(*(read_jsonl(run / "metrics.jsonl") for run in (ones, found)), strict=True):
        for name in ("loss", "td_loss", "mc_loss", "conservative_loss", "clipped_high"):
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-6), name
        assert b["q_data"] == pytest.approx(100 * a["q_data"], rel=1e-3)
    golden = [np.load(run / "checkpoints/step_0000008/golden.npz") for run in (ones, found)]
    np.testing.assert_array_equal(golden[0]["bins"], golden[1]["bins"])


def test_a_cost_per_step_needs_no_range(fit, make_config, make_dataset, make_episode) -> None:
    run = fit(make_config(), data=rewarded(make_dataset, make_episode, 0.0, 1.0))
    assert learned_value(run)["v_min"] == pytest.approx(-sum(0.98**k for k in range(6)))
    assert learned_value(run)["v_max"] == -1.0
    assert learned_value(run)["initial"] < -4
    Policy.from_checkpoint(run, device="cpu")


def test_fine_tuning_goes_on_with_the_range_that_was_learned_widened_to_the_new_data(
    fit, make_config, make_dataset, make_episode, tmp_path
) -> None:
    first = fit(make_config(), "first")
    golden = np.load(first / "checkpoints/step_0000008/golden.npz")
    costly = rewarded(make_dataset, make_episode, 1.0, 0.5)
    trainer = Trainer(make_config(init=str(first)), costly, tmp_path / "second", progress=False)
    head = trainer.learner.head
    assert head.v_max == 1.0
    assert head.v_min == pytest.approx(costly.stats.return_min)
    assert trainer.policy.network.value_head is trainer.learner.target_network.value_head is head
    values = trainer.policy.golden_sample(trainer._golden)["q_values"]
    assert np.abs(values[0] - golden["q_values"][0]).max() < 0.02 * head.span
    trainer.fit()
    assert learned_value(tmp_path / "second")["v_min"] == head.v_min
    Policy.from_checkpoint(tmp_path / "second", device="cpu")


@pytest.mark.parametrize("algo", ["q", "mc", "bc"])
@pytest.mark.usefixtures("widening")
def test_a_fine_tuning_resumes_bit_for_bit_when_what_it_began_from_is_gone(
    algo, fit, make_config, make_dataset, make_episode
) -> None:
    first = fit(make_config(), "first")
    config, costly = make_config(init=str(first), algo=algo), rewarded(make_dataset, make_episode, 1.0, 0.5)
    whole = fit(config, "whole", data=costly)
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(costly, 5))
    shutil.rmtree(first)
    cut = fit(config, "cut", data=costly, resume=True)
    assert everything(cut) == everything(whole)
    assert [learned_value(cut)[end] for end in ("v_min", "v_max")] == [learned_value(whole)[end] for end in ("v_min", "v_max")]


def test_regression_to_returns_fine_tunes_on_the_new_datas_range_too_and_resumes(
    fit, make_config, make_dataset, make_episode
) -> None:
    first = fit(make_config(), "first")
    config, costly = make_config(init=str(first), algo="mc"), rewarded(make_dataset, make_episode, 1.0, 0.5)
    whole = fit(config, "whole", data=costly)
    assert learned_value(whole)["v_min"] == pytest.approx(costly.stats.return_min)
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(costly, 5))
    assert everything(fit(config, "cut", data=costly, resume=True)) == everything(whole)
    cloned = fit(make_config(init=str(first), algo="bc"), "cloned", data=costly)
    assert learned_value(cloned)["v_min"] == learned_value(first)["v_min"] == 0.0

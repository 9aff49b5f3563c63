"""The loop around updates: what it logs, what it draws, when it stops."""

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qtransformer import Policy, Trainer
from qtransformer.batch import Batch
from qtransformer.config import to_dict
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.metrics import read_jsonl
from tests.core.trainings import Spoilt


def test_metrics_are_logged_and_sent_to_every_sink(fit, make_config) -> None:
    heard: list[int] = []
    run = fit(make_config(), sinks=[lambda step, values: heard.append(step)])
    lines = read_jsonl(run / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8] == heard
    parts = {f"seconds/{part}" for part in ("data", "forward", "backward", "target")}
    names = {"loss", "td_loss", "q_start", "return_start", "bootstrap_exceeds_floor", "unseen_excess", "calibration_error"}
    assert parts | names | {"samples_per_second"} <= lines[-1].keys()
    assert all(np.isfinite(v) for line in lines for v in line.values())
    assert json.loads((run / "config.json").read_text()) == to_dict(make_config())


def test_a_sink_that_raises_is_dropped_and_the_training_goes_on(fit, make_config) -> None:
    heard: list[int] = []

    def broken(step: int, values: Mapping[str, float]) -> None:
        heard.append(step)
        raise ConnectionError("tracker: network is unreachable")

    with pytest.warns(UserWarning, match="failed at step 2 and is told nothing more: .*unreachable"):
        run = fit(make_config(), sinks=[broken])
    assert heard == [2]
    assert read_jsonl(run / "metrics.jsonl")[-1]["step"] == 8


def test_a_log_without_room_ends_no_training(fit, make_config, tmp_path) -> None:
    log = tmp_path / "run" / "metrics.jsonl"

    def fill(step: int, values: Mapping[str, float]) -> None:
        """From step 4 on, every write to the log finds the disk full."""
        if step == 4:
            log.unlink()
            log.symlink_to("/dev/full")

    with pytest.warns(UserWarning, match=r"cannot write .*metrics\.jsonl: the disk is full") as told:
        run = fit(make_config(), sinks=[fill])
    assert len([w for w in told if "metrics.jsonl" in str(w.message)]) == 1
    assert (run / "checkpoints" / "step_0000008" / "manifest.json").exists()


def test_a_short_training_leaves_no_bar_in_a_file(make_config, dataset, tmp_path, capsys) -> None:
    Trainer(make_config(), dataset, tmp_path, progress=True).fit()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("keep", "left"), [(2, [6, 8]), (1, [8]), (0, [2, 4, 6, 8])])
def test_old_checkpoints_are_pruned(keep: int, left: list[int], fit, make_config) -> None:
    run = fit(make_config(save_every=2, keep_checkpoints=keep))
    assert sorted(p.name for p in (run / "checkpoints").glob("step_*")) == [f"step_{s:07d}" for s in left]


def test_losses_that_stay_not_finite_stop_the_training_and_spare_the_checkpoint(fit, make_config, dataset) -> None:
    def poison(step: int, batch: Batch) -> Batch:
        return replace(batch, mc_return=batch.mc_return * np.nan) if step >= 5 else batch

    with pytest.raises(QTransformerError, match=r"not finite 3 updates in a row, at step 7.*5 to 7") as caught:
        fit(make_config(steps=20), data=Spoilt(dataset, poison))
    run = Path(str(caught.value).split("losses are in ")[1].split("not_finite.json")[0])
    assert [p.name for p in (run / "checkpoints").glob("step_*")] == ["step_0000004"]
    assert json.loads((run / "not_finite.json").read_text())["step"] == 7
    Policy.from_checkpoint(run, device="cpu")
    assert not (run / "run.lock").exists()


def test_a_single_bad_batch_is_passed_over(fit, make_config, dataset) -> None:
    def poison(step: int, batch: Batch) -> Batch:
        return replace(batch, mc_return=batch.mc_return * np.nan) if step == 5 else batch

    run = fit(make_config(), data=Spoilt(dataset, poison))
    weights = load_file(run / "checkpoints" / "step_0000008" / "model.safetensors")
    assert all(torch.isfinite(v).all() for v in weights.values())


@pytest.mark.parametrize("algo", ["q", "bc"])
def test_a_configuration_is_not_changed_by_building_and_training(algo, fit, make_config) -> None:
    config = make_config(algo=algo, model={"history": 2})
    before = copy.deepcopy(config)
    run = fit(config)
    assert config == before
    value = replace(before.value, v_min=0.0, v_max=1.0, initial=0.05)  # what the data said of what was left open
    assert Policy.from_checkpoint(run, device="cpu").config == replace(before, value=value)


def test_cloning_learns_from_successes_alone_unless_told_otherwise(fit, make_config, dataset) -> None:
    def asked(**settings: Any) -> list[tuple[str, int]]:
        """Which episodes are asked for, and from which step on."""
        heard: list[tuple[str, int]] = []

        class Asked(Spoilt):
            def segments(self, *, filter: str = "all", start: int = 0, **settings: Any) -> Iterator[Batch]:
                heard.append((filter, start))
                return super().segments(filter=filter, start=start, **settings)

        name = "_".join(map(str, settings.values()))
        fit(make_config(steps=3, **settings), name, data=Asked(dataset, lambda step, batch: batch))
        return heard[1:]  # after a first batch, drawn to see whether one can be

    assert asked(algo="bc") == [("success", 0)]
    assert asked(algo="bc", bc_filter_success=False) == [("all", 0)]
    assert asked(algo="q") == [("all", 0)]
    assert asked(algo="q", cloning_steps=2) == [("success", 0), ("all", 2)]
    assert asked(algo="mc", cloning_steps=2, bc_filter_success=False) == [("all", 0), ("all", 2)]


@pytest.mark.parametrize("algo", ["q", "mc"])
def test_cloning_must_leave_steps_to_learn_values_in(algo, dataset, make_config, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"cloning_steps=8 of steps=8 leave none .*; raise steps above 8"):
        Trainer(make_config(algo=algo, cloning_steps=8), dataset, tmp_path, progress=False)
    Trainer(make_config(algo=algo, cloning_steps=7), dataset, tmp_path, progress=False)
    Trainer(make_config(algo="bc", cloning_steps=8), dataset, tmp_path, progress=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"targets": {"behavior_success_only": True}},
        {"algo": "mc", "targets": {"behavior_success_only": True}},
        {"algo": "bc", "bc_filter_success": False, "targets": {"behavior_success_only": True}},
        {"algo": "bc"},
        {"cloning_steps": 2},
    ],
)
def test_what_is_imitated_must_have_succeeded_once(settings, make_config, make_dataset, make_episode, tmp_path) -> None:
    failures = make_dataset([make_episode(4, seed, success=False) for seed in range(4)])
    with pytest.raises(ConfigError, match=r"no episode of these data is marked successful; .*bc_filter_success=false"):
        Trainer(make_config(**settings), failures, tmp_path, progress=False)
    Trainer(make_config(), failures, tmp_path, progress=False)
    Trainer(make_config(algo="bc", bc_filter_success=False), failures, tmp_path, progress=False)
    Trainer(make_config(targets={"behavior_success_only": True, "behavior_mask": 0.0}), failures, tmp_path, progress=False)


@pytest.mark.parametrize("asked", [{"initial": 5.0, "v_min": 0.0, "v_max": 1.0}, {"initial": -1.0, "v_min": 0.0}])
def test_a_first_value_lies_in_the_range_asked_for(asked, make_config, dataset, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"value\.initial=.* must lie in the range of values, found \[0\.0, "):
        Trainer(make_config(value=asked), dataset, tmp_path, progress=False)


def test_images_are_not_shifted_away(make_config, dataset, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"max_shift=16 .* camera 'front' .* 24 x 16 pixels"):
        Trainer(make_config(optim={"max_shift": 16}), dataset, tmp_path, progress=False)


def test_surprise_without_effect_is_told(make_config, make_dataset, make_episode, tmp_path) -> None:
    """Where successes run into the time limit, a reward of 1 may be followed by more, and so explains any value."""
    surprised = make_config(targets={"proposals": 4, "surprise": 0.3})
    with pytest.warns(UserWarning, match=r"surprise=0\.3 has no effect: .* earns up to 1, as much as a whole episode.*dones="):
        Trainer(surprised, make_dataset([make_episode(6, s, end="truncated") for s in range(4)]), tmp_path, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(surprised, make_dataset([make_episode(6, s) for s in range(4)]), tmp_path, progress=False)


@pytest.mark.parametrize("history", [1, 3])
def test_returns_of_first_steps_are_those_of_whole_episodes(history, fit, make_config, make_dataset, make_episode) -> None:
    """Only an episode's first step counts, not that of a segment: of 12 steps the last is rewarded in every episode."""
    data = make_dataset([make_episode(12, seed, success=True) for seed in range(6)])
    run = fit(make_config(steps=40, log_every=40, model={"history": history}), data=data)
    assert read_jsonl(run / "metrics.jsonl")[-1]["return_start"] == pytest.approx(0.98**11, rel=1e-5)


def test_values_are_left_alone_while_cloning(fit, make_config, dataset, tmp_path) -> None:
    config = make_config(cloning_steps=4)
    fresh = Trainer(config, dataset, tmp_path / "fresh", progress=False).learner.network.q_head.out.weight
    run = fit(config)
    logged = {line["step"]: "td_loss" in line for line in read_jsonl(run / "metrics.jsonl")}
    assert logged == {2: False, 4: False, 6: True, 8: True}
    saved = [load_file(run / f"checkpoints/step_{step:07d}/model.safetensors")["q_head.out.weight"] for step in (4, 8)]
    assert torch.equal(saved[0], fresh)
    assert not torch.equal(saved[1], fresh)


def test_steps_are_balanced(fit, make_config, dataset) -> None:
    asked: list[str] = []

    class Asked(Spoilt):
        def segments(self, **settings: Any) -> Iterator[Batch]:
            asked.append(settings["balance"])
            return super().segments(**settings)

    data = Asked(dataset, lambda step, batch: batch)
    fit(make_config(steps=1), "alone", data=data)
    fit(make_config(steps=2, cloning_steps=1, data={"balance": "success"}), "cloned first", data=data)
    fit(make_config(steps=1, algo="bc", bc_filter_success=False, data={"balance": "success"}), "cloned", data=data)
    assert asked == [*["none"] * 2, *["success"] * 5]  # each first draws a batch to see whether one can be


def test_bins_too_coarse_for_the_data_are_told(make_config, make_dataset, make_episode, tmp_path) -> None:
    """Of 5 bins over [-1, 1], actions of `dx` in [-.2, .2] reach one. A switch needs no more than its values, nor does what is
    never used."""
    episodes = [make_episode(6, seed) for seed in range(4)]
    for episode in episodes:
        episode.actions[:, 0] *= 0.2
    with pytest.warns(UserWarning, match=r"'dx' uses only 0\.\d+ of 5 bins .*raise model\.action_bins") as told:
        Trainer(make_config(), make_dataset(episodes), tmp_path, progress=False)
    assert len(told) == 1
    for episode in episodes:
        episode.actions[:, 0] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(make_config(), make_dataset(episodes), tmp_path, progress=False)


def test_several_processes_are_refused_that_would_not_train_together(fit, make_config, monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    with pytest.raises(ConfigError, match=r"found 4 of torch\.distributed"):
        fit(make_config(steps=1))

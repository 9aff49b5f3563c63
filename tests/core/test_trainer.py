import copy
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qtransformer import ObservationSpec, Policy, Trainer
from qtransformer.batch import Batch
from qtransformer.checkpoint import best_scores, set_best
from qtransformer.config import TrainConfig, to_dict
from qtransformer.errors import CheckpointError, ConfigError, QTransformerError, SpecMismatchError
from qtransformer.files import write_manifest
from qtransformer.metrics import read_jsonl
from qtransformer.run_guard import is_held
from qtransformer_datasets import EpisodeDataset


class Killed(BaseException):
    """A process that ends without a word."""


class Spoilt:
    """A dataset whose batches something happens to."""

    def __init__(self, dataset: EpisodeDataset, happen: Callable[[int, Batch], Batch]) -> None:
        self._dataset, self._happen = dataset, happen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def segments(self, *, start: int = 0, **settings: Any) -> Iterator[Batch]:
        batches = self._dataset.segments(start=start, **settings)
        return (self._happen(step, batch) for step, batch in enumerate(batches, start))


def killed_at(dataset: EpisodeDataset, step: int) -> Spoilt:
    def happen(at: int, batch: Batch) -> Batch:
        if at == step:
            raise Killed
        return batch

    return Spoilt(dataset, happen)


@pytest.fixture(scope="module")
def dataset(make_dataset) -> EpisodeDataset:
    return make_dataset()


@pytest.fixture
def fit(dataset, tmp_path: Path) -> Callable[..., Path]:
    """Train into a directory of a name; returns it."""

    def run(config: TrainConfig, name: str = "run", *, data: Any = None, resume: bool = False, **settings: Any) -> Path:
        Trainer(config, data or dataset, tmp_path / name, progress=False, **settings).fit(resume=resume)
        return tmp_path / name

    return run


def everything(run: Path, step: int = 8) -> dict[str, bytes]:
    """Weights, optimiser and target network of a run's checkpoint."""
    directory = run / "checkpoints" / f"step_{step:07d}"
    names = ("model.safetensors", "training_state/state.safetensors", "golden.npz")
    return {name: (directory / name).read_bytes() for name in names[:2]}


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


@pytest.mark.parametrize("settings", [{"algo": "q"}, {"algo": "mc"}, {"algo": "bc"}, {"algo": "q", "cloning_steps": 6}], ids=str)
@pytest.mark.parametrize("killed", [5, 7])
def test_a_killed_training_resumed_equals_the_uninterrupted_one_bit_for_bit(settings, killed, fit, make_config, dataset) -> None:
    config = make_config(**settings, model={"history": 2})
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, killed))
    cut = fit(config, "cut", resume=True)
    assert everything(cut) == everything(whole)
    assert [line["step"] for line in read_jsonl(cut / "metrics.jsonl")] == [2, 4, 6, 8]


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


def test_two_kills_in_a_row_and_one_before_the_first_checkpoint_change_nothing(fit, make_config, dataset) -> None:
    config = make_config(steps=10, save_every=3)
    whole = fit(config, "whole")
    for killed in (1, 4, 8):
        with pytest.raises(Killed):
            fit(config, "cut", data=killed_at(dataset, killed), resume=killed > 1)
    assert everything(fit(config, "cut", resume=True), 10) == everything(whole, 10)


def test_resnet_and_channels_last_weights_resume_bit_for_bit_too(fit, make_config, dataset) -> None:
    """The optimiser's moments must come back in the memory layout of their weights."""
    config = make_config(model={"encoder": "resnet18", "encoder_width": 8})
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, 6))
    assert everything(fit(config, "cut", resume=True)) == everything(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_ends_in_order_and_resumes_bit_for_bit(number, fit, make_config) -> None:
    config = make_config(log_every=1)

    def interrupt(step: int, values: object) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    whole, cut = fit(config, "whole"), fit(config, "cut", sinks=[interrupt])
    assert [p.name for p in (cut / "checkpoints").glob("step_*")] == ["step_0000003"]
    assert not (cut / "run.lock").exists()
    assert everything(fit(config, "cut", resume=True)) == everything(whole)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(fit, make_config) -> None:
    config = make_config()
    run = fit(config)
    expected, weights = everything(run), run / "checkpoints" / "step_0000008" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="falling back"):
        fit(config, resume=True)
    assert everything(run) == expected


def test_pointers_are_not_needed_to_resume(fit, make_config, dataset) -> None:
    config = make_config()
    whole = fit(config, "whole")
    with pytest.raises(Killed):
        fit(config, "cut", data=killed_at(dataset, 6))
    pointer = whole.parent / "cut" / "checkpoints" / "latest.json"
    pointer.unlink()
    assert everything(fit(config, "cut", resume=True)) == everything(whole)
    assert pointer.exists()


def test_a_finished_training_resumed_does_nothing(fit, make_config) -> None:
    run = fit(make_config())
    before = everything(run)
    fit(make_config(), resume=True)
    assert everything(run) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_cannot_be_resumed_is_not_started_again(resume: bool, fit, make_config) -> None:
    """Its policies still act; that their training_state is deleted to save space is allowed."""
    run = fit(make_config())
    before = everything(run)
    for state in run.glob("checkpoints/*/training_state"):
        state.rename(run / f"deleted_{state.parent.name}")
    with (
        pytest.warns(UserWarning, match="falling back"),
        pytest.raises(CheckpointError, match=r"found 2 whose training_state.*init=.*step_0000008 and another run="),
    ):
        fit(make_config(), resume=resume)
    (run / "deleted_step_0000008").rename(run / "checkpoints/step_0000008/training_state")
    assert everything(run) == before
    assert not (run / "run.lock").exists()


def test_a_directory_that_holds_a_run_is_not_written_over(fit, make_config) -> None:
    run = fit(make_config())
    before = everything(run)
    with pytest.raises(ConfigError, match="resume"):
        fit(make_config())
    assert everything(run) == before


def test_resuming_on_other_data_is_refused(fit, make_config, make_dataset, make_episode) -> None:
    fit(make_config())
    with pytest.raises(SpecMismatchError, match="another dataset"):
        fit(make_config(steps=12), data=make_dataset([make_episode(4, seed=77)]), resume=True)


@pytest.fixture
def validated(monkeypatch) -> Callable[[list[float]], None]:
    """Let validation give these success rates, one checkpoint after the other."""

    def give(rates: list[float]) -> None:
        results = iter(rates)
        monkeypatch.setattr("qtransformer.trainer.evaluate", lambda *a, **k: SimpleNamespace(success=next(results)))

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

    monkeypatch.setattr("qtransformer.trainer.set_best", killed)
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


def test_validation_asks_for_an_environment(fit, make_config) -> None:
    with pytest.raises(ConfigError, match="eval_env"):
        fit(make_config(eval_episodes=3))


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


def test_fine_tuning_starts_from_the_checkpoints_weights_and_normalisation(
    fit, make_config, make_dataset, make_episode, tmp_path
) -> None:
    run = fit(make_config(), "first")
    other = make_dataset([make_episode(5, seed=s, proprio=np.full((6, 2), 9.0, np.float32)) for s in range(50, 54)])
    with pytest.warns(UserWarning, match=r"in these data 'x' is 9 ± 0, the checkpoint's .*; 'y' is 9.*normalisation is kept"):
        trainer = Trainer(make_config(init=str(run)), other, tmp_path / "second", progress=False)
    weights = load_file(run / "checkpoints" / "step_0000008" / "model.safetensors")
    for name, value in trainer.learner.network.state_dict().items():
        assert torch.equal(value, weights[name]), name
    trainer.fit()
    tuned = Policy.from_checkpoint(tmp_path / "second", device="cpu").network.state_dict()
    assert torch.equal(tuned["proprio_mean"], weights["proprio_mean"])
    stats = [json.loads(next(r.glob("checkpoints/step_0000008/stats.json")).read_text()) for r in (run, tmp_path / "second")]
    assert stats[0]["proprio_mean"] == stats[1]["proprio_mean"]
    assert stats[0]["mean_length"] != stats[1]["mean_length"]
    assert not torch.equal(tuned["q_head.out.bias"], weights["q_head.out.bias"])


def test_data_that_do_not_fit_the_checkpoint_are_refused_with_both_sides_listed(
    fit, make_config, make_dataset, make_episode, action_spec, observation_spec, tmp_path
) -> None:
    run = fit(make_config(), "first")
    cameras = {"front": (24, 16, 3), "side": (20, 24, 3)}
    episode = make_episode(4, images={c: np.zeros((5, *s), np.uint8) for c, s in cameras.items()})
    other = make_dataset(
        [episode],
        action_spec=replace(action_spec, names=("dx", "gripper", "dz")),
        observation_spec=ObservationSpec(cameras, observation_spec.proprio_names, observation_spec.proprio_units, 10.0),
    )
    with pytest.raises(SpecMismatchError) as caught:
        Trainer(make_config(init=str(run)), other, tmp_path / "second", progress=False)
    message = str(caught.value)
    for side in ("wrist", "side", "'dy'", "'dz'", "5.0", "10.0"):
        assert side in message


def test_another_network_than_the_checkpoints_is_refused(fit, make_config, dataset, tmp_path) -> None:
    run = fit(make_config(), "first")
    with pytest.raises(SpecMismatchError, match=r"'num_bins': 21.*'num_bins': 31"):
        Trainer(make_config(init=str(run), value={"num_bins": 31}), dataset, tmp_path / "second", progress=False)


def test_returns_under_another_discount_are_refused(fit, make_config) -> None:
    with pytest.raises(ConfigError, match="with_discount"):
        fit(make_config(targets={"discount": 0.9}))


def test_what_a_mirror_cannot_show_is_refused(fit, make_config) -> None:
    fit(make_config(optim={"mirror": ["dx"]}))
    with pytest.raises(ConfigError, match=r"no action dimension 'dz'; the data have dx, gripper, dy"):
        fit(make_config(optim={"mirror": ["dz"]}), "unknown")
    with pytest.raises(ConfigError, match=r"'dy' has the limits \[-0\.2, 0\.3\]"):
        fit(make_config(optim={"mirror": ["dy"]}), "uneven")


@pytest.mark.parametrize("algo", ["q", "bc"])
def test_a_configuration_is_not_changed_by_building_and_training(algo, fit, make_config) -> None:
    config = make_config(algo=algo, model={"history": 2})
    before = copy.deepcopy(config)
    run = fit(config)
    assert config == before
    value = replace(before.value, v_min=0.0, v_max=1.0, initial=0.05)  # what the data said of what was left open
    assert Policy.from_checkpoint(run, device="cpu").config == replace(before, value=value)


def test_a_second_process_in_the_same_directory_is_refused(fit, make_config, tmp_path) -> None:
    lock = tmp_path / "run" / "run.lock"
    lock.parent.mkdir()
    hold = f"import fcntl; file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        lock.write_text(json.dumps({"pid": other.pid, "host": os.uname().nodename}))
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            fit(make_config())
        other.kill()
    fit(make_config())  # the other is gone: its lock is taken over
    lock.write_text(json.dumps({"pid": 1, "host": "another-machine"}))
    with pytest.raises(ConfigError, match="another-machine"):
        fit(make_config(), resume=True)


def test_a_run_is_described_under_its_lock_and_once(dataset, make_config, tmp_path) -> None:
    run, held = tmp_path / "run", []

    def describe() -> None:
        held.append((is_held(run / "run.lock"), (run / "checkpoints").exists()))

    trainer = Trainer(make_config(steps=1), dataset, run, progress=False)
    trainer.fit(describe=describe)
    trainer.fit(resume=True, describe=describe)
    with pytest.raises(ConfigError, match="holds a run already"):
        trainer.fit(describe=describe)
    assert held == [(True, False)]


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
        return heard

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


def test_values_are_left_alone_while_cloning(fit, make_config, dataset, tmp_path) -> None:
    config = make_config(cloning_steps=4)
    fresh = Trainer(config, dataset, tmp_path / "fresh", progress=False).learner.network.q_head.out.weight
    run = fit(config)
    logged = {line["step"]: "td_loss" in line for line in read_jsonl(run / "metrics.jsonl")}
    assert logged == {2: False, 4: False, 6: True, 8: True}
    saved = [load_file(run / f"checkpoints/step_{step:07d}/model.safetensors")["q_head.out.weight"] for step in (4, 8)]
    assert torch.equal(saved[0], fresh)
    assert not torch.equal(saved[1], fresh)


def test_steps_are_balanced_and_dealt_out_to_ranks(fit, make_config, dataset, monkeypatch) -> None:
    asked: list[Any] = []

    class Asked(Spoilt):
        def segments(self, **settings: Any) -> Iterator[Batch]:
            asked.append([settings[name] for name in ("balance", "rank", "world_size")])
            return super().segments(**settings)

    data = Asked(dataset, lambda step, batch: batch)
    fit(make_config(steps=1), "alone", data=data)
    fit(make_config(steps=2, cloning_steps=1, data={"balance": "success"}), "cloned first", data=data)
    fit(make_config(steps=1, algo="bc", bc_filter_success=False, data={"balance": "success"}), "cloned", data=data)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    fit(make_config(steps=1, data={"balance": "success"}), "together", data=data)
    assert asked == [["none", 0, 1], *[["success", 0, 1]] * 3, ["success", 2, 4]]


@pytest.mark.parametrize(("before", "after", "told"), [(1, 4, "left out"), (4, 2, "drawn again"), (2, 2, ""), (None, 4, "")])
def test_resuming_with_other_processes_says_that_the_order_of_samples_changes(
    before: int | None, after: int, told: str, fit, make_config, monkeypatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: before or 1)
    run = fit(make_config(steps=1))
    if before is None:  # a checkpoint from before world sizes were kept
        state = run / "checkpoints/step_0000001/training_state"
        position = json.loads((state / "position.json").read_text())
        del position["world_size"]
        (state / "position.json").write_text(json.dumps(position))
        write_manifest(state)
        write_manifest(state.parent)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: after)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(make_config(steps=1), resume=True)
    found = [str(w.message) for w in caught if "order of samples" in str(w.message)]
    assert len(found) == bool(told)
    assert not told or (told in found[0] and f"saved by {before} process(es) and {after} go on" in found[0])


@pytest.mark.parametrize(("after", "told"), [(5, "left out"), (2, "drawn again"), (3, "")])
def test_resuming_with_other_batches_says_that_the_order_of_samples_changes(after: int, told: str, fit, make_config) -> None:
    fit(make_config(steps=1, optim={"batch_segments": 3}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(make_config(steps=1, optim={"batch_segments": after}), resume=True)
    found = [str(w.message) for w in caught if "order of samples" in str(w.message)]
    assert len(found) == bool(told)
    assert not told or (told in found[0] and f"optim.batch_segments=3 and goes on with {after}" in found[0])


def test_a_resumed_training_keeps_its_normalisation(fit, make_config, dataset, tmp_path) -> None:
    config = make_config()
    with pytest.raises(Killed):
        fit(config, data=killed_at(dataset, 6))
    trainer = Trainer(config, dataset, tmp_path / "run", progress=False)
    trainer.stats["proprio_mean"] = [99.0, 99.0]
    with pytest.warns(UserWarning, match="'x' is 99"):
        trainer.fit(resume=True)
    first, last = (json.loads((tmp_path / f"run/checkpoints/step_000000{step}/stats.json").read_text()) for step in (4, 8))
    assert first == last

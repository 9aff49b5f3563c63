"""Trainings that are killed, stopped, doubled, and given what they cannot use."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli.compose import compose_settings
from qtransformer.cli.main import main
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.train import run_config
from qtransformer.errors import StorageError
from qtransformer.metrics import read_jsonl
from qtransformer.run_guard import exclusive
from qtransformer_datasets.data_source import DataSource
from tests.cli.console import ACTION, OBSERVATION, TINY, kill_hard, qtransformer, start, wait_until, write_dataset


def weights(run: Path, step: int) -> dict[str, np.ndarray]:
    checkpoint = run / "checkpoints" / f"step_{step:07d}"
    return {**load_file(checkpoint / "model.safetensors"), **load_file(checkpoint / "training_state" / "state.safetensors")}


def assert_same_weights(a: Path, b: Path, step: int) -> None:
    first, second = weights(a, step), weights(b, step)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def saved(run: Path) -> int:
    """Checkpoints so far."""
    return len(list((run / "checkpoints").glob("step_???????")))


def test_a_run_describes_itself(trained: Path, dataset: Path) -> None:
    config = RunConfig.load(trained)
    assert config.datasets == [DataSource(path=str(dataset))]
    assert config.train.steps == 4
    assert config.train.model.embed_dim == 32
    assert read_jsonl(trained / "metrics.jsonl")[-1]["step"] == 4
    assert list((trained / "tensorboard").glob("events*"))


def test_killed_twice_and_resumed_ends_in_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    arguments = [f"dataset={dataset}", "steps=60", "save_every=10", "log_every=1", "keep_checkpoints=0", *TINY]
    assert qtransformer("train", *arguments, f"run={tmp_path}/whole").code == 0
    run = tmp_path / "killed"
    process = start("train", *arguments, f"run={run}")
    wait_until(lambda: saved(run) >= 1, process)
    kill_hard(process)
    assert (run / "run.lock").exists(), "killed after its end: nothing was tested"
    process = start("resume", f"run={run}")
    before = saved(run)
    wait_until(lambda: saved(run) > before, process)
    kill_hard(process)
    result = qtransformer("resume", f"run={run}")
    assert result.code == 0, result.err
    assert_same_weights(run, tmp_path / "whole", 60)
    assert [line["step"] for line in read_jsonl(run / "metrics.jsonl")] == list(range(1, 61))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, code: int, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", f"dataset={dataset}", f"run={run}", "steps=1000000", "save_every=1000000", "log_every=1", *TINY)
    wait_until(lambda: len(read_jsonl(run / "metrics.jsonl")) > 2, process)
    os.kill(process.pid, number)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == code, out
    assert f"go on with: qtransformer resume run={run}" in out
    assert "Traceback" not in out
    assert saved(run) == 1
    assert not (run / "run.lock").exists()


def test_a_second_process_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", f"dataset={dataset}", f"run={run}", "steps=1000000", "save_every=5", *TINY)
    try:
        wait_until(lambda: saved(run) >= 1, process)
        second = qtransformer("resume", f"run={run}")
        assert second.code == 1
        assert f"process {process.pid} on" in second.error
    finally:
        kill_hard(process)


def test_a_second_train_does_not_describe_the_run_of_the_first(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both found an empty directory."""
    with exclusive(tmp_path):
        assert main(["train", f"dataset={dataset}", f"run={tmp_path}", "steps=2", *TINY]) == 1
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    assert not (tmp_path / "config.yaml").exists()
    assert main(["train", f"dataset={dataset}", f"run={tmp_path}", "steps=2", *TINY]) == 0
    assert RunConfig.load(tmp_path).train.steps == 2


def test_a_description_is_replaced_whole_or_not_at_all(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.load(trained)
    config.save(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(StorageError, match=r"cannot write .*config\.yaml: killed"):
        replace(config, env={"longer": "x" * 1000}).save(tmp_path)
    assert RunConfig.load(tmp_path) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_finished_run_is_not_said_to_be_trained_again(trained: Path) -> None:
    result = qtransformer("resume", f"run={trained}")
    assert result.code == 0
    assert f"was trained to step 4 already; train init={trained}" in result.out


def test_a_training_that_never_began_is_in_nobody_s_way(dataset: Path, tmp_path: Path) -> None:
    """There is one instruction: no batch can be drawn that is balanced by it."""
    words = [f"dataset={dataset}", f"run={tmp_path / 'run'}", "steps=2", *TINY]
    first = qtransformer("train", "data.balance=instruction", *words)
    assert first.code == 1
    assert "balance 'instruction' expected two groups" in first.error
    assert qtransformer("train", *words).code == 0


def test_a_run_is_not_overwritten(trained: Path, dataset: Path) -> None:
    before = (trained / "config.yaml").read_text()
    result = qtransformer("train", f"dataset={dataset}", f"run={trained}", "steps=9", *TINY)
    assert result.code == 1
    assert f"qtransformer resume run={trained}" in result.error
    assert (trained / "config.yaml").read_text() == before


def test_dry_run_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    result = qtransformer("train", f"dataset={dataset}", f"run={tmp_path}/run", "dry_run=true", *TINY)
    assert result.code == 0
    assert "would train 3000 steps" in result.out
    assert not (tmp_path / "run").exists()


def test_dry_run_says_that_nothing_but_cloning_would_be_left(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"dataset={dataset}", f"run={tmp_path}/run", "dry_run=true", "preset=grasp", *TINY]
    assert main(["train", *words, "steps=1000"]) == 1
    assert "cloning_steps=1500 of steps=1000" in capsys.readouterr().err
    assert main(["train", *words, "steps=1501"]) == 0


def test_a_truncated_file_is_refused(dataset: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.hdf5"
    torn.write_bytes(dataset.read_bytes()[: dataset.stat().st_size // 2])
    result = qtransformer("train", f"dataset={torn}", f"run={tmp_path}/run", *TINY)
    assert result.code == 1
    assert str(torn) in result.error
    assert "truncated" in result.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "finite"), (1.5, "limits [-0.05, 0.05]")])
def test_bad_actions_are_refused(bad: float, word: str, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "bad.hdf5")
    with h5py.File(path, "r+") as file:
        file["data/demo_3/actions"][2, 0] = bad
    result = qtransformer("train", f"dataset={path}", f"run={tmp_path}/run", *TINY)
    assert result.code == 1
    assert "demo_3" in result.error
    assert word in result.error


@pytest.mark.parametrize("what", ["cameras", "action names"])
def test_fine_tuning_on_other_cameras_or_actions_is_refused(what: str, trained: Path, tmp_path: Path) -> None:
    observation, action = OBSERVATION, ACTION
    if what == "cameras":
        observation = replace(OBSERVATION, cameras={"front": (16, 16, 3)})
    else:
        action = replace(ACTION, names=("dz", "close"))
    path = write_dataset(tmp_path / "other.hdf5", observation, action)
    result = qtransformer("train", f"dataset={path}", f"run={tmp_path}/run", f"init={trained}", *TINY)
    assert result.code == 1
    assert what in result.error
    both = ["'wrist'", "'front'", "cameras={wrist:front}"] if what == "cameras" else ["'dx'", "'dz'"]
    assert all(side in result.error for side in both)
    assert not (tmp_path / "run").exists()


def test_a_fine_tuning_is_resumed_from_another_folder(
    trained: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parent)
    words = [f"dataset={os.path.relpath(dataset)}", f"init={trained.name}", f"run={tmp_path}/run", "steps=2", *TINY]
    assert main(["train", *words]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["resume", "run=run"]) == 0
    assert RunConfig.load(tmp_path / "run").train.init == str(resolve_checkpoint(trained)), "whatever is the best one there later"
    assert run_config(compose_settings("train", [f"dataset={dataset}", "run=run", *TINY])).train.init == "", "none stays none"


def test_renamed_cameras_fit_a_checkpoint_that_was_trained_on_others(trained: Path, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "other.hdf5", replace(OBSERVATION, cameras={"front": (16, 16, 3), "top": (8, 8, 3)}))
    said = f"dataset={{path:{path},cameras:{{wrist:front}}}}"
    arguments = [said, f"run={tmp_path}/run", f"init={trained}", "steps=2", *TINY]
    result = qtransformer("train", *arguments, "dry_run=true")
    assert result.code == 0, result.err
    assert f"dataset {path} (cameras {{'wrist': 'front'}})" in result.out
    assert "cameras wrist 16 x 16" in result.out
    assert qtransformer("train", *arguments).code == 0
    assert RunConfig.load(tmp_path / "run").datasets == [DataSource(path=str(path), cameras={"wrist": "front"})]
    again = qtransformer("resume", f"run={tmp_path}/run")
    assert again.code == 0, again.err


def test_resuming_with_other_data_is_refused(dataset: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data.hdf5", tmp_path / "run"
    data.write_bytes(dataset.read_bytes())
    assert qtransformer("train", f"dataset={data}", f"run={run}", "steps=2", *TINY).code == 0
    with h5py.File(data, "r+") as file:
        file["data/demo_0/rewards"][0] = 0.5
    result = qtransformer("resume", f"run={run}")
    assert result.code == 1
    assert "another dataset" in result.error


def test_a_full_disk_keeps_the_earlier_checkpoint(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [f"dataset={dataset}", f"run={run}", "steps=4", "save_every=2", *TINY]
    assert qtransformer("train", *arguments).code == 0
    size = max(f.stat().st_size for f in (run / "checkpoints").rglob("*.safetensors"))
    config = RunConfig.load(run)
    replace(config, train=replace(config.train, steps=8)).save(run)
    result = qtransformer("resume", f"run={run}", prefix=f"ulimit -f {size // 2 // 1024};")
    assert result.code == 1
    assert "disk is full" in result.error
    assert saved(run) == 2
    assert not list((run / "checkpoints").glob("*.tmp*"))
    assert qtransformer("resume", f"run={run}").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "dataset: [3]\n",
        "dataset: [{path: a, weight: x}]\n",
        "dataset: a\n",
        "[1, 2]",
        "dataset: [a]\nstepz: 3\n",
        "dataset: !!python/object/apply:os.system ['true']\n",
        "a: [",
        "",
    ],
)
def test_a_strange_config_constructs_nothing(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert main(["resume", f"run={tmp_path}"]) == 1
    assert f"error: {tmp_path}/config.yaml" in capsys.readouterr().err


def test_interpolations_in_a_config_are_not_resolved(trained: Path, tmp_path: Path) -> None:
    text = (trained / "config.yaml").read_text().replace("device: cpu", "device: ${oc.env:HOME}")
    (tmp_path / "config.yaml").write_text(text)
    assert RunConfig.load(tmp_path).train.device == "${oc.env:HOME}"


def test_resuming_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", f"run={tmp_path}/none"]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_a_broken_curve_log_does_not_stop_training(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").write_text("a file where TensorBoard wants a folder")
    result = qtransformer("train", f"dataset={dataset}", f"run={run}", "steps=4", "log_every=1", *TINY)
    assert result.code == 0
    assert result.err.count("TensorBoard log stopped") == 1
    assert len(read_jsonl(run / "metrics.jsonl")) == 4


def test_a_cache_changes_nothing_and_a_balance_does(trained: Path, dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.hdf5"
    copy.write_bytes(dataset.read_bytes())
    arguments = [f"dataset={copy}", "steps=4", "save_every=2", *TINY]
    assert qtransformer("train", *arguments, f"run={tmp_path}/cached", "data.cache=always").code == 0
    assert list(tmp_path.glob("copy.hdf5.cache/*/manifest.json"))
    assert_same_weights(tmp_path / "cached", trained, 4)
    assert qtransformer("train", *arguments, f"run={tmp_path}/balanced", "data.balance=success").code == 0
    assert RunConfig.load(tmp_path / "balanced").train.data.balance.value == "success"
    balanced, before = weights(tmp_path / "balanced", 4), weights(trained, 4)
    assert balanced.keys() == before.keys()
    assert any((balanced[name] != before[name]).any() for name in before)

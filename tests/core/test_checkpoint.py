import json
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer import Policy
from qtransformer.checkpoint import (
    Artefact,
    complete_checkpoints,
    latest_resumable,
    prune_checkpoints,
    read_checkpoint,
    read_training_state,
    remove_unfinished,
    resolve_checkpoint,
    set_best,
    write_checkpoint,
)
from qtransformer.config import TrainConfig
from qtransformer.errors import CheckpointError, QTransformerError
from qtransformer.files import write_manifest

CPU = torch.device("cpu")


@pytest.fixture
def live(make_config, make_network, action_spec, observation_spec) -> Policy:
    config = make_config(model={"history": 3})
    return Policy(make_network(config), config, action_spec, observation_spec, CPU)


@pytest.fixture
def save(live: Policy, make_episode, observe, tmp_path: Path) -> Callable[[int], Path]:
    """The live policy as a checkpoint of a step."""

    def write(step: int) -> Path:
        artefact = Artefact(
            config=live.config,
            action_spec=live.action_spec,
            observation_spec=live.observation_spec,
            stats={"proprio_mean": [0.1, -0.2], "proprio_std": [0.9, 1.1]},
            network=live.network,
            golden=live.golden_sample(observe(make_episode(3), 0)),
        )
        return write_checkpoint(tmp_path / "checkpoints", step, artefact, {"m": torch.arange(3.0)}, {"step": step})

    return write


def test_a_saved_policy_acts_bit_for_bit_like_the_live_one(live, save, make_episode, observe) -> None:
    loaded, episode = Policy.from_checkpoint(save(1), device="cpu"), make_episode(20, seed=4)
    live.reset()
    for t in range(20):
        a, b = live.decide(observe(episode, t)), loaded.decide(observe(episode, t))
        for name in ("action", "bins", "q_values", "value_probs", "allowed"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{name} at step {t}")


def test_everything_an_artefact_is_made_of_comes_back(live, save) -> None:
    found = read_checkpoint(save(7), CPU)
    assert found.config == live.config
    assert found.action_spec == live.action_spec
    assert found.observation_spec == live.observation_spec
    assert found.metadata["step"] == 7
    assert {"qtransformer", "torch", "python"} <= found.metadata.keys()
    for name, tensor in live.network.state_dict().items():
        assert torch.equal(tensor, found.network.state_dict()[name])


def test_a_policy_runs_without_its_training_state_but_cannot_resume(save) -> None:
    path = save(1)
    assert read_training_state(path)[1] == {"step": 1}
    shutil.rmtree(path / "training_state")
    Policy.from_checkpoint(path, device="cpu")
    with pytest.raises(CheckpointError, match=r"cannot resume|not resume"):
        read_training_state(path)


def test_no_file_is_a_pickle(save) -> None:
    files = [f for f in save(1).rglob("*") if f.is_file()]
    assert {f.suffix for f in files} == {".safetensors", ".json", ".npz"}
    with np.load(next(f for f in files if f.suffix == ".npz"), allow_pickle=False) as golden:
        assert all(golden[name].dtype != object for name in golden.files)


def spoil(path: Path, change: Callable[[Any], Any], *, honest: bool) -> None:
    """Alter a JSON file of a checkpoint; `honest` writes the manifest anew, as an attacker would."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    if honest:
        write_manifest(path.parent)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spec.json", "stats.json", "golden.npz", "metadata.json"])
def test_every_file_is_under_the_manifest(save, name: str) -> None:
    path = save(1)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        Policy.from_checkpoint(path, device="cpu")


@pytest.mark.parametrize("name", ["spec.json", "stats.json", "golden.npz"])
def test_a_file_that_says_nothing_is_refused_even_under_a_fresh_manifest(save, name: str) -> None:
    path = save(1)
    (path / name).write_text("{}")
    write_manifest(path)
    with pytest.raises(CheckpointError, match=name):
        Policy.from_checkpoint(path, device="cpu")


def test_a_golden_sample_without_its_parts_is_refused(save) -> None:
    path = save(1)
    np.savez(path / "golden.npz", something=np.zeros(3))
    write_manifest(path)
    with pytest.raises(CheckpointError, match="golden"):
        Policy.from_checkpoint(path, device="cpu")


def test_weights_that_act_differently_from_the_golden_sample_are_refused(save) -> None:
    """Manifest in order, contents not: another bias in the head."""
    from safetensors.torch import load_file, save_file

    path = save(1)
    weights = load_file(path / "model.safetensors")
    weights["q_head.out.bias"] += torch.linspace(0.0, 3.0, 21)
    save_file(weights, path / "model.safetensors")
    write_manifest(path)
    with pytest.raises(CheckpointError, match="does not act as it did when it was saved"):
        Policy.from_checkpoint(path, device="cpu")


def test_weights_that_are_not_numbers_are_refused(save) -> None:
    from safetensors.torch import load_file, save_file

    path = save(1)
    weights = load_file(path / "model.safetensors")
    weights["q_head.out.bias"][0] = float("nan")
    save_file(weights, path / "model.safetensors")
    write_manifest(path)
    with pytest.raises(CheckpointError, match="values differ by nan of their range"):
        Policy.from_checkpoint(path, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {**c, "_target_": "os.system"}, "_target_"),
        (lambda c: {**c, "value": {**c["value"], "_target_": "os.system", "command": "touch /tmp/owned"}}, "_target_"),
        (lambda c: {**c, "surprise": 1}, "surprise"),
        (lambda c: {**c, "algo": "__import__"}, "algo"),
        (lambda c: {**c, "steps": "os.system('true')"}, "steps"),
        (lambda c: {**c, "model": {**c["model"], "embed_dim": 32}}, "does not fit"),
        (lambda c: [1, 2], "mapping"),
    ],
)
def test_a_hostile_config_builds_nothing(save, change, message: str) -> None:
    path = save(1)
    spoil(path / "config.json", change, honest=True)
    with pytest.raises(QTransformerError, match=message):
        Policy.from_checkpoint(path, device="cpu")


def test_a_pickle_in_place_of_the_weights_is_not_run(save, tmp_path: Path) -> None:
    import pickle

    sentinel = tmp_path / "owned"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (sentinel,))

    for name in ("model.safetensors", "golden.npz"):
        path = save(1)
        (path / name).write_bytes(pickle.dumps(Bomb()))
        write_manifest(path)
        with pytest.raises(CheckpointError, match=name):
            Policy.from_checkpoint(path, device="cpu")
        assert not sentinel.exists()


def test_the_best_checkpoint_is_preferred_then_the_newest_complete_one(save, tmp_path: Path) -> None:
    first, second, third = save(1), save(2), save(3)
    root = tmp_path / "checkpoints"
    assert resolve_checkpoint(tmp_path) == third
    set_best(root, second, validation_success=0.5)
    assert resolve_checkpoint(tmp_path) == second
    assert resolve_checkpoint(first) == first
    for dangling in ('{"step": "step_0000099"}', '{"step": "../../etc"}', "[]", "not json", '{"stop": 1}'):
        (root / "best.json").write_text(dangling)
        assert resolve_checkpoint(tmp_path) == third
    (root / "best.json").unlink()
    (root / "latest.json").write_text('{"step": "step_0000001"}')  # a kill came between a checkpoint and its pointer
    assert resolve_checkpoint(tmp_path) == third


def test_checkpoints_are_counted_not_spelt(save, tmp_path: Path) -> None:
    """Ten million has a digit more than their names have room for."""
    steps = (9_998_000, 9_999_000, 10_000_000, 10_001_000)
    for step in steps:
        root = save(step).parent
    assert [int(p.name.removeprefix("step_")) for p in complete_checkpoints(root)] == list(steps)
    prune_checkpoints(root, 2, root / "step_10001000")
    assert [int(p.name.removeprefix("step_")) for p in complete_checkpoints(root)] == list(steps[2:])


def test_unfinished_directories_are_no_checkpoints(save, tmp_path: Path) -> None:
    root = save(1).parent
    shutil.copytree(root / "step_0000001", root / "step_0000002.tmp-123")
    shutil.copytree(root / "step_0000001", root / "step_0000003")
    (root / "step_0000003" / "manifest.json").unlink()
    assert [p.name for p in complete_checkpoints(root)] == ["step_0000001"]


def test_nothing_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Policy.from_checkpoint(tmp_path, device="cpu")


@pytest.mark.parametrize("victim", ["model.safetensors", "training_state/state.safetensors", "manifest.json"])
def test_resuming_passes_over_a_damaged_checkpoint_with_a_warning(save, tmp_path: Path, victim: str) -> None:
    good, bad = save(1), save(2)
    data = bytearray((bad / victim).read_bytes())
    data[len(data) // 2] ^= 0x10
    (bad / victim).write_bytes(data)
    with pytest.warns(UserWarning, match="falling back"):
        assert latest_resumable(tmp_path) == good


def test_pruning_keeps_the_newest_and_the_best(save, tmp_path: Path) -> None:
    for step in range(1, 6):
        save(step)
    root = tmp_path / "checkpoints"
    set_best(root, root / "step_0000002", validation_success=0.5)
    newest = root / "step_0000005"
    prune_checkpoints(root, 2, newest)
    assert [p.name for p in complete_checkpoints(root)] == ["step_0000002", "step_0000004", "step_0000005"]
    prune_checkpoints(root, 0, newest)
    assert len(complete_checkpoints(root)) == 3


def test_pruning_gives_up_nothing_for_a_later_checkpoint_that_was_passed_over(save, tmp_path: Path) -> None:
    """Training fell back behind a damaged one and has saved since."""
    root = save(4).parent
    save(1), save(2)
    prune_checkpoints(root, 1, root / "step_0000002")
    assert [p.name for p in complete_checkpoints(root)] == ["step_0000002", "step_0000004"]


def test_what_killed_saves_left_is_removed(save, tmp_path: Path) -> None:
    root = save(1).parent
    shutil.copytree(root / "step_0000001", root / "step_0000002.tmp-123")
    remove_unfinished(root)
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ["step_0000001"]


def test_a_deletion_that_fails_only_warns(save, tmp_path: Path, monkeypatch) -> None:
    for step in (1, 2):
        save(step)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.warns(UserWarning, match="could not delete"):
        prune_checkpoints(tmp_path / "checkpoints", 1, tmp_path / "checkpoints" / "step_0000002")


def test_a_full_disk_leaves_the_earlier_checkpoint_as_it_was(save, tmp_path: Path) -> None:
    """In a process that may write no file beyond 20 kB, which is how a full disk looks from inside."""
    before = save(1)
    sums = {f: f.read_bytes() for f in before.rglob("*") if f.is_file()}
    script = f"""
        import resource, signal
        from pathlib import Path
        import torch
        from qtransformer.checkpoint import read_checkpoint, write_checkpoint
        from qtransformer.errors import StorageError
        artefact = read_checkpoint({str(before)!r}, torch.device("cpu"))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            write_checkpoint(Path({str(before.parent)!r}), 2, artefact, {{"m": torch.zeros(10)}}, {{"step": 2}})
        except StorageError as error:
            print("said:", error)
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert "said:" in out.stdout
    assert "full" in out.stdout
    assert "earlier checkpoints are untouched" in out.stdout
    assert sorted(p.name for p in before.parent.iterdir()) == ["latest.json", "step_0000001"]
    assert sums == {f: f.read_bytes() for f in before.rglob("*") if f.is_file()}
    Policy.from_checkpoint(tmp_path, device="cpu")


def test_a_checkpoint_reads_like_a_document(save) -> None:
    path = save(1)
    config = json.loads((path / "config.json").read_text())
    spec = json.loads((path / "spec.json").read_text())
    assert config["value"]["kind"] == "hl_gauss"
    assert spec["action"]["names"] == ["dx", "gripper", "dy"]
    assert spec["observation"]["cameras"]["wrist"] == [20, 24, 3]
    assert isinstance(TrainConfig(**{"steps": config["steps"]}), TrainConfig)

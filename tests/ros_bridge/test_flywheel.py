"""What a deployed policy did becomes data: a folder of recorded bags is inspected, converted, and trained on beside a file."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from qtransformer.cli.main import main
from qtransformer.types import Episode
from qtransformer_datasets import HDF5Writer, open_episodes
from tests.ros_bridge.kuka_bags import CONTRACT, MS, START, Playback, messages

TINY = ["model.embed_dim=32", "model.encoder_width=8", "model.num_layers=1", "model.head_dim=16", "optim.batch_segments=4"]
TINY += ["threads=1", "device=cpu", "steps=2", "save_every=2"]


def episode(seed: int, length: int = 6) -> Episode:
    rng = np.random.default_rng(seed)
    last = np.arange(length) == length - 1
    continuous, switches = rng.uniform(-1, 1, (length, 4)), rng.integers(0, 2, (length, 2)) * 2.0 - 1
    return Episode(
        images={"wrist": rng.integers(0, 256, (length + 1, 64, 64, 3), np.uint8)},
        proprio=rng.normal(size=(length + 1, 15)).astype(np.float32),
        actions=np.concatenate([continuous, switches], axis=1).astype(np.float32),
        rewards=(last & (seed % 2 == 0)).astype(np.float32),
        terminated=last,
        truncated=np.zeros(length, bool),
        instruction="pick up any object",
        success=seed % 2 == 0,
    )


@pytest.fixture
def bags(tmp_path: Path) -> Path:
    """Two episodes as the recorder writes them."""
    playback = Playback(tmp_path / "bags")
    spec = playback.contract.action_spec()
    for seed in (2, 3):
        own = episode(seed)
        playback.play(messages(own, spec.to_units(own.actions), playback.contract, START + seed * 10_000 * MS))
    return tmp_path / "bags"


@pytest.fixture
def file(tmp_path: Path, bags: Path) -> Path:
    """Two others, as `collect` writes them."""
    specs = open_episodes(bags, contract=CONTRACT)
    with HDF5Writer(tmp_path / "data.hdf5", specs.action_spec, specs.observation_spec) as writer:
        for seed in (0, 1):
            writer.append(episode(seed))
    return tmp_path / "data.hdf5"


def test_a_policy_is_trained_further_on_what_it_did(bags: Path, file: Path, tmp_path: Path) -> None:
    assert main(["train", f"dataset={file}", f"run={tmp_path}/first", *TINY]) == 0
    mixed = f"dataset=[{{path:{bags},contract:{CONTRACT}}},{file}]"
    assert main(["train", mixed, f"init={tmp_path}/first", f"run={tmp_path}/second", *TINY]) == 0
    assert list((tmp_path / "second" / "checkpoints").glob("step_*"))


def test_bags_are_inspected_and_converted(bags: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "inspect", str(bags), f"contract={CONTRACT}"]) == 0
    assert "none found" in capsys.readouterr().out
    assert main(["data", "convert", str(bags), f"contract={CONTRACT}", f"out={tmp_path}/bags.hdf5"]) == 0
    converted = open_episodes(tmp_path / "bags.hdf5")
    assert len(converted) == 2
    for seed, read in zip((2, 3), converted, strict=True):
        own = episode(seed)
        assert read.images["wrist"].tobytes() == own.images["wrist"].tobytes()
        assert read.proprio.tobytes() == own.proprio.tobytes()
        assert np.abs(read.actions - own.actions).max() < 1e-6
        assert (read.success, read.terminated.tolist()) == (own.success, own.terminated.tolist())

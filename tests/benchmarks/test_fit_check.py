"""The fit check itself: honest where a training does not fit, and passed by one that does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fit_check
import other_robot
from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Writer, open_episodes
from qtransformer_datasets.episodes.check import check_episode

TINY = ["model.embed_dim=32", "model.encoder_width=8", "model.num_layers=1", "model.head_dim=16", "threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("robot") / "log.hdf5"
    other_robot.main(str(path), 4)
    return path


def test_the_other_robot_is_unlike_the_simulators(log: Path) -> None:
    source = open_episodes(log)
    assert len(source.action_spec) == 8
    assert sorted(shape for shape in source.observation_spec.cameras.values()) == [(32, 32, 3), (48, 64, 3)]
    for episode in source:
        check_episode(episode, source.action_spec, source.observation_spec, "x")
    assert [episode.success for episode in source] == [True, False, True, False]
    assert np.array_equal(other_robot.make_episode(3).actions, other_robot.make_episode(3).actions)


def test_too_short_a_training_does_not_pass(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_check.main([f"dataset={log}", "algo=bc", "rounds=2", "episodes=1", *TINY]) == 1
    out = capsys.readouterr().out
    assert "1 successes of" in out
    assert "does not fit within 2 steps" in out


def test_a_dataset_without_successes_is_refused(log: Path, tmp_path: Path) -> None:
    source = open_episodes(log)
    with HDF5Writer(tmp_path / "failures.hdf5", source.action_spec, source.observation_spec) as writer:
        writer.append(source.read(1))
    with pytest.raises(DatasetError, match=r"no episode succeeds; say which do: dataset=\{path:.*,success:\[0,3\]\}"):
        fit_check.main([f"dataset={tmp_path}/failures.hdf5", *TINY])


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["bc", "q"])
def test_training_fits_the_other_robot(algo: str, log: Path) -> None:
    assert fit_check.main([f"dataset={log}", f"algo={algo}", "episodes=2", "device=cpu", "threads=1"]) == 0


def test_values_without_rewards_are_refused(log: Path, tmp_path: Path) -> None:
    source = open_episodes(log)
    with HDF5Writer(tmp_path / "bare.hdf5", source.action_spec, source.observation_spec) as writer:
        for episode in source:
            writer.append(replace(episode, rewards=np.zeros_like(episode.rewards)))
    with pytest.raises(ConfigError, match="no step carries a reward"):
        fit_check.main([f"dataset={tmp_path}/bare.hdf5", "algo=q", *TINY])

"""robomimic's own SequenceDataset on files of ours, in the environment of `make peers`."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROBOMIMIC = ROOT / ".venv-robomimic" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC.exists(), reason="robomimic is not installed: make peers")
@pytest.mark.parametrize("key", [None, "train", "valid"])
def test_its_samples_are_ours(write_file, make_episode, key: str | None) -> None:
    path = write_file([make_episode(1 + i, i, end="truncated" if i % 3 else "terminated") for i in range(11)])
    steps = {None: 66, "train": 56, "valid": 10}[key]
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets"))
    command = [str(ROBOMIMIC), str(ROOT / "benchmarks" / "robomimic_parity.py"), str(path)]
    command += ["--filter-key", key] if key else []
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert f"{steps} samples of" in done.stdout, done.stdout + done.stderr


LEARNER = """
import sys
from pathlib import Path
import numpy as np
import robomimic.utils.obs_utils as obs_utils
import robomimic_learner as learner
from qtransformer_datasets import HDF5Episodes

path = Path(sys.argv[1])
episodes = list(HDF5Episodes(path))
cameras = [f"{camera}_image" for camera in episodes[0].images]
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["proprio"], "rgb": cameras}})
scale = learner.Scale.of(episodes)
keys = {"obs_keys": ["proprio", *cameras], "dataset_keys": ["actions", "rewards", "dones"]}
samples = iter(learner.OurFile(path, episodes, scale, **keys, load_next_obs=True))
for episode in episodes:
    frames = learner.observed(episode.images, scale(episode.proprio))
    for step in range(len(episode)):
        sample = next(samples)
        for key, rows in frames.items():
            assert np.array_equal(sample["obs"][key][0], rows[step]), key
            assert np.array_equal(sample["next_obs"][key][0], rows[step + 1]), key
        assert np.array_equal(sample["actions"][0], episode.actions[step])
        assert sample["rewards"][0] == episode.rewards[step]
        assert sample["dones"][0] == episode.terminated[step], "a time limit is no end of the task"
print(sum(map(len, episodes)), "transitions well")
"""


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC.exists(), reason="robomimic is not installed: make peers")
def test_it_learns_from_our_transitions(write_file, make_episode) -> None:
    path = write_file([make_episode(1 + i, i, end="truncated" if i % 2 else "terminated") for i in range(4)])
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets", "benchmarks"))
    command = [str(ROBOMIMIC), "-c", LEARNER, str(path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert "10 transitions well" in done.stdout, done.stdout + done.stderr

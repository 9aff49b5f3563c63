"""Samples of robomimic's own SequenceDataset against ours, index by index; run by .venv-robomimic.

PYTHONPATH=.:sim:datasets .venv-robomimic/bin/python benchmarks/robomimic_parity.py demo.hdf5 [--filter-key train]
"""
# pyright: reportMissingImports=false

import argparse

import numpy as np
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset

from qtransformer_datasets import HDF5Episodes


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("path")
    arguments.add_argument("--filter-key")
    given = arguments.parse_args()
    ours = HDF5Episodes(given.path, filter_key=given.filter_key)
    cameras = [f"{camera}_image" for camera in ours.observation_spec.cameras]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["proprio"], "rgb": cameras}})
    episodes = list(ours)  # read before: HDF5 does not open a file in two ways at once, and robomimic keeps it open as SWMR
    theirs = SequenceDataset(
        given.path,
        obs_keys=["proprio", *cameras],
        dataset_keys=["actions", "rewards", "dones"],
        filter_by_attribute=given.filter_key,
        load_next_obs=False,
    )
    index, expected = 0, {}
    for episode in episodes:
        expected = {"obs/proprio": episode.proprio[:-1], "actions": episode.actions, "rewards": episode.rewards}
        expected |= {f"obs/{camera}_image": images[:-1] for camera, images in episode.images.items()}
        expected["dones"] = (episode.terminated | episode.truncated).astype(np.int64)
        for step in range(len(episode)):
            sample = theirs[index]
            found = {f"obs/{key}": rows for key, rows in sample["obs"].items()} | {k: sample[k] for k in expected if k in sample}
            assert found.keys() == expected.keys(), (found.keys(), expected.keys())
            for key, rows in expected.items():
                assert found[key].dtype == rows.dtype, (index, key, found[key].dtype, rows.dtype)
                np.testing.assert_array_equal(found[key], rows[step : step + 1], err_msg=f"sample {index}, {key}")
            index += 1
    assert index == len(theirs), f"ours has {index} steps, robomimic's {len(theirs)}"
    print(f"{index} samples of {len(ours)} episodes equal: {', '.join(expected)}")


if __name__ == "__main__":
    main()

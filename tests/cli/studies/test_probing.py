"""Features are probed on what they were learned from."""

from pathlib import Path

import numpy as np

from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.studies.probing import as_trained_on
from qtransformer.config import TrainConfig
from qtransformer_datasets.data_source import DataSource


def test_a_cell_is_probed_on_rewards_as_it_was_trained_on(dataset: Path, tmp_path: Path) -> None:
    said = {"path": str(tmp_path / "own.hdf5"), "reward_scale": 3.0, "step_reward": -1.0}
    RunConfig(datasets=[DataSource.parse(said)], train=TrainConfig()).save(tmp_path)
    checkpoint = tmp_path / "checkpoints" / "step_0000004"
    logged = DataSource(path=str(dataset)).open()
    for read, episode in zip(as_trained_on(str(dataset), str(checkpoint)), logged, strict=True):
        assert np.array_equal(read.rewards, 3 * episode.rewards - 1)

"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.cli.console import TINY, qtransformer, write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny.hdf5")


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    result = qtransformer("train", f"dataset={dataset}", f"run={run}", "steps=4", "save_every=2", *TINY)
    assert result.code == 0, result.err
    return run

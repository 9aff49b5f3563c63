"""Folders of datasets."""

import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.dataset_folders import find_datasets


def test_datasets_are_found_in_folders_below(tmp_path, write_file, make_episode) -> None:
    path = write_file([make_episode(2)])
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not a dataset")
    deep = path.rename(tmp_path / "b" / "c" / "deep.hdf5")
    (tmp_path / "b" / "left.hdf5.partial").mkdir()
    (tmp_path / "b" / "left.hdf5.partial" / "demo_0.hdf5").write_bytes(b"")
    assert find_datasets(tmp_path) == [deep, tmp_path / "b" / "left.hdf5.partial"]
    assert find_datasets(deep) == [deep]


def test_a_folder_without_datasets_is_refused(tmp_path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        find_datasets(tmp_path)

"""Folders of datasets."""

import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.curation.folders import find_datasets


def test_datasets_are_found_in_folders_below(tmp_path, write_file, make_episode) -> None:
    path = write_file([make_episode(2)])
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not a dataset")
    deep = path.rename(tmp_path / "b" / "c" / "deep.hdf5")
    (tmp_path / "b" / "left.hdf5.partial").mkdir()
    (tmp_path / "b" / "left.hdf5.partial" / "demo_0.hdf5").write_bytes(b"")
    assert find_datasets(tmp_path) == [deep, tmp_path / "b" / "left.hdf5.partial"]
    assert find_datasets(deep) == [deep]


def test_a_folder_with_a_bag_in_it_is_gone_through(tmp_path, write_file, make_episode) -> None:
    demo = write_file([make_episode(2)])
    bag, lone, lerobot = tmp_path / "bag", tmp_path / "old.mcap", tmp_path / "le" / "robot"
    for folder in (bag, lerobot / "meta"):
        folder.mkdir(parents=True)
    for file in (bag / "metadata.yaml", bag / "bag_0.mcap", bag / "bag_1.mcap", lone, lerobot / "meta" / "info.json"):
        file.write_text("")
    assert find_datasets(tmp_path) == [bag, demo, lerobot, lone]
    assert find_datasets(bag) == [bag]


def test_a_bag_without_metadata_is_one(tmp_path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "bag_0.mcap").write_text("")
    assert find_datasets(tmp_path) == find_datasets(bag) == [bag]


def test_our_own_caches_are_passed_over(tmp_path, write_file, make_episode) -> None:
    path = write_file([make_episode(2)])
    for folder in (tmp_path / f"{path.name}.cache", tmp_path / "somebodys.cache"):
        folder.mkdir()
        (folder / "copy.hdf5").write_bytes(path.read_bytes())
    assert find_datasets(tmp_path) == [path, tmp_path / "somebodys.cache" / "copy.hdf5"]


def test_a_folder_without_datasets_is_refused(tmp_path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        find_datasets(tmp_path)

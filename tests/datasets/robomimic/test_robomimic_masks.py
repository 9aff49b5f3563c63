"""Masks of a robomimic file, in a copy that is otherwise the same."""

import json

import h5py
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import open_episodes
from qtransformer_datasets.robomimic.masks import copy_with_masks

MADE = {"verb": "split", "seed": 3}


@pytest.fixture
def foreign(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2 + i, i) for i in range(4)])
    with h5py.File(path, "r+") as file:
        file["mask/train"], file["mask/better"] = [b"demo_0"], [b"demo_3"]
        file["data/demo_0"].attrs["model_file"] = "<mujoco/>"
    return path


def everything(path) -> dict:
    """Content of all datasets and attributes but those of the masks."""
    found = {}
    with h5py.File(path) as file:
        file["data"].visititems(
            lambda name, node: found.update(
                {name: (dict(node.attrs), node[()].tobytes() if isinstance(node, h5py.Dataset) else b"")}
            )
        )
    return found


def test_everything_else_of_somebodys_file_stays(foreign, tmp_path) -> None:
    before, out = foreign.read_bytes(), tmp_path / "out.hdf5"
    copy_with_masks(foreign, out, {"train": ["demo_2", "demo_1"], "valid": ["demo_3"]}, MADE)
    assert foreign.read_bytes() == before
    assert everything(out) == everything(foreign)
    with h5py.File(out) as file:
        assert {name: list(names[()]) for name, names in file["mask"].items()} == {
            "train": [b"demo_2", b"demo_1"],
            "valid": [b"demo_3"],
            "better": [b"demo_3"],
        }
        assert json.loads(file["mask"].attrs["derived"]) == MADE
    options = {"dones": "terminated"}
    assert open_episodes(out, filter_key="train", **options).lengths == [3, 4]
    assert open_episodes(out, filter_key="better", **options).lengths == [5]
    assert {path.name for path in tmp_path.iterdir()} == {"f.hdf5", "out.hdf5"}


def test_a_file_without_masks_gets_some(tmp_path, write_foreign, foreign_demo) -> None:
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2), foreign_demo(3)])
    copy_with_masks(path, tmp_path / "out.hdf5", {"valid": ["demo_1"]}, MADE)
    assert open_episodes(tmp_path / "out.hdf5", filter_key="valid", dones="terminated").lengths == [3]


def masks_of(path) -> set[str]:
    with h5py.File(path) as file:
        return set(file["mask"])


PARTS = ("train", "valid", "test")


def test_our_own_masks_of_a_split_go_together(tmp_path, write_file, make_episode, foreign) -> None:
    ours, again, theirs = tmp_path / "a.hdf5", tmp_path / "b.hdf5", tmp_path / "c.hdf5"
    path = write_file([make_episode(2, i) for i in range(11)])
    copy_with_masks(path, ours, {"train": ["demo_0"], "test": ["demo_9"]}, MADE, PARTS)
    assert masks_of(ours) == {"train", "test"}, "every tenth demo, the writer's mask `valid`, would overlap the test"
    copy_with_masks(foreign, theirs, {"test": ["demo_0"]}, MADE, PARTS)
    assert masks_of(theirs) == {"train", "better", "test"}, "somebody's masks are not ours to drop"
    copy_with_masks(theirs, again, {"valid": ["demo_0"]}, MADE, PARTS)
    assert masks_of(again) == {"train", "better", "valid"}, "the mask `test` was ours"


def test_nothing_is_written_over_and_nothing_left_of_a_failure(foreign, tmp_path) -> None:
    with pytest.raises(DatasetError, match="expected a free path"):
        copy_with_masks(foreign, foreign, {"train": ["demo_1"]}, MADE)
    assert open_episodes(foreign, filter_key="train", dones="terminated").lengths == [2]
    with pytest.raises(DatasetError, match=r"gone\.hdf5"):
        copy_with_masks(tmp_path / "gone.hdf5", tmp_path / "out.hdf5", {"train": ["demo_1"]}, MADE)
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]


def test_a_link_where_masks_should_be_is_not_followed(foreign, tmp_path) -> None:
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file.create_group("theirs")
    before = other.read_bytes()
    with h5py.File(foreign, "r+") as file:
        del file["mask"]
        file["mask"] = h5py.ExternalLink(str(other), "/theirs")
    with pytest.raises(DatasetError, match="'mask' in / is a ExternalLink"):
        copy_with_masks(foreign, tmp_path / "out.hdf5", {"train": ["demo_1"]}, MADE)
    assert other.read_bytes() == before
    assert not (tmp_path / "out.hdf5").exists()

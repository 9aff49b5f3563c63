"""`data split` and `data merge`: parts, masks, and what is joined again."""

from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from qtransformer_datasets import open_episodes
from tests.cli.console import OBSERVATION, successes, write_dataset


def test_split_writes_parts_once(run, dataset: Path, tmp_path: Path) -> None:
    words = ["split", str(dataset), f"out={tmp_path}/parts", "train=.5", "validation=.25", "test=.25"]
    assert run(*words, "dry_run=true")[0] == 0
    assert not (tmp_path / "parts").exists()
    assert run(*words)[0] == 0
    parts = [tmp_path / "parts" / f"{name}.hdf5" for name in ("train", "validation", "test")]
    assert [sum(successes(part)) for part in parts] == [2, 1, 1]
    assert [len(successes(part)) for part in parts] == [4, 2, 2]
    parts[2].unlink()
    assert run(*words)[0] == 0, "the same command goes on with what is missing"
    assert parts[2].exists()
    parts[0].unlink()
    for more in ([], ["dry_run=true"]):
        code, told, err = run(*words, "seed=1", *more)
        assert code == 1
        assert "made otherwise" in err
        assert not told, "nothing is told of parts that are not written"
    assert not parts[0].exists()


def test_a_part_without_a_success_is_warned_of(run, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "rare.hdf5")
    with h5py.File(data, "r+") as file:
        for index in (2, 4, 6):
            file[f"data/demo_{index}"].attrs["success"] = False
    words = ["split", str(data), f"out={tmp_path}/parts", "dry_run=true", "train=.5", "validation=.25", "test=.25"]
    for masks in ("false", "true"):
        with pytest.warns(UserWarning, match="no success among the episodes of train and test, though the dataset has 1: `eval"):
            assert run(*words, f"masks={masks}")[0] == 0


def test_split_by_masks_copies_the_file_and_names_the_parts(run, dataset: Path, tmp_path: Path) -> None:
    original, out = dataset.read_bytes(), tmp_path / "new" / "masked.hdf5"
    words = ["split", str(dataset), f"out={out}", "masks=true", "train=.5", "validation=.25", "test=.25"]
    assert run(*words, "dry_run=true")[0] == 0
    assert not out.exists()
    code, told, _ = run(*words)
    assert code == 0
    assert f"{out}, mask valid: 2 episodes, 1 successful: " in told
    assert dataset.read_bytes() == original
    kept = {name: [e.success for e in open_episodes(out, filter_key=name)] for name in ("train", "valid", "test")}
    assert {name: (len(won), sum(won)) for name, won in kept.items()} == {"train": (4, 2), "valid": (2, 1), "test": (2, 1)}
    assert run("validate", str(out))[0] == 0
    assert run("split", str(dataset), f"out={tmp_path}/parts", "train=.5", "validation=.25", "test=.25")[0] == 0
    for part, mask in {"train": "train", "validation": "valid", "test": "test"}.items():
        apart, masked = open_episodes(tmp_path / "parts" / f"{part}.hdf5"), open_episodes(out, filter_key=mask)
        assert [e.actions.tobytes() for e in apart] == [e.actions.tobytes() for e in masked]
    code, _, err = run(*words)
    assert code == 1
    assert "expected a free path" in err


def test_a_split_without_validation_leaves_no_mask_for_it(run, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.hdf5", tmp_path / "masked.hdf5"
    data = write_dataset(tmp_path / "half.hdf5")
    assert run("merge", str(data), str(data), f"out={whole}")[0] == 0
    with h5py.File(whole) as file:
        assert file["mask/valid"].shape == (1,)
    assert run("split", str(whole), f"out={out}", "masks=true", "train=.5", "validation=0", "test=.5")[0] == 0
    with h5py.File(out) as file:
        assert set(file["mask"]) == {"train", "test"}


def test_masks_within_a_mask_are_named_after_both(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "masked.hdf5"
    words = ["split", str(dataset), f"out={out}", "masks=true", "filter_key=train", "train=.5", "validation=.5", "test=0"]
    with h5py.File(dataset) as file:
        before = set(file["mask/train"][()].tolist())
    assert run(*words)[0] == 0
    with h5py.File(out) as file:
        masks = {name: set(names[()].tolist()) for name, names in file["mask"].items()}
    assert set(masks) == {"train", "valid", "train_train", "train_valid"}
    assert masks["train"] == before == masks["train_train"] | masks["train_valid"]
    assert not masks["train_train"] & masks["train_valid"]


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("image_size=8", "found image_size; apply that with `data convert`"),
        ("on_bad_episode=skip", "found on_bad_episode"),
        ("out.crf=3", "found out.crf"),
        ("format=lerobot", "found lerobot and robomimic"),
    ],
)
def test_a_copy_with_masks_changes_nothing_else(run, dataset: Path, tmp_path: Path, word: str, answer: str) -> None:
    code, _, err = run("split", str(dataset), f"out={tmp_path}/m.hdf5", "masks=true", word)
    assert code == 2
    assert answer in err
    assert not list(tmp_path.iterdir())


def test_shares_must_add_up(run, dataset: Path, tmp_path: Path) -> None:
    code, _, err = run("split", str(dataset), f"out={tmp_path}/p", "train=.5")
    assert code == 2
    assert "train=0.5 validation=0.1 test=0.1" in err


def test_merge_joins_what_agrees(run, dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other.hdf5", replace(OBSERVATION, cameras={"front": (16, 16, 3)}))
    code, _, err = run("merge", str(dataset), str(other), f"out={tmp_path}/m.hdf5")
    assert code == 1
    assert "cameras={wrist:front}" in err
    assert run("merge", str(dataset), str(dataset), f"out={tmp_path}/m.hdf5")[0] == 0
    assert len(open_episodes(tmp_path / "m.hdf5")) == 16
    assert run("merge", str(dataset), f"out={tmp_path}/n.hdf5")[0] == 2

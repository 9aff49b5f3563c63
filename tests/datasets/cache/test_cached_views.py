"""Datasets seen otherwise (other names, fewer cameras, smaller images, other labels) go through the cache like any other."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from qtransformer.types import ObservationSpec
from qtransformer_datasets import EpisodeDataset, HDF5Writer
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.stream.frames import array_fields

SPEC = ObservationSpec(
    cameras={"wrist": (6, 8, 3), "front": (4, 4, 3), "depth": (2, 2, 3)},
    proprio_names=("x",),
    proprio_units=("m",),
    control_hz=10.0,
)
VIEWS: list[dict[str, Any]] = [
    {"cameras": {"front": "wrist", "hand": "front"}},
    {"cameras": ["depth"]},
    {"cameras": {"a": "wrist", "b": "wrist"}},
    {"image_size": 2},
    {"success": True},
    {"rewards": "success"},
    {"rewards": "success", "reward_scale": 20, "step_reward": -1, "reward_noise": 0.3, "noise_seed": 2},
    {"cameras": {"hand": "wrist"}, "image_size": [3, 4], "success": True, "rewards": "success"},
]


@pytest.fixture
def path(tmp_path, make_episode, action_spec) -> Path:
    with HDF5Writer(tmp_path / "demo.hdf5", action_spec, SPEC) as writer:
        for i in range(7):
            end = ("terminated", "truncated")[i % 2]
            episode = make_episode(2 + i, i, end=end, success=i % 3 > 0, observation_spec=SPEC, instruction=f"task {i % 2}")
            kept = i != 5
            writer.append(replace(episode, has_final_observation=kept, timestamps=np.arange(3.0 + i) if i == 1 else None))
    with h5py.File(tmp_path / "demo.hdf5", "r+") as file:
        for demo in file["data"].values():
            del demo.attrs["success"]  # so that `success` contradicts nothing
    return tmp_path / "demo.hdf5"


def dataset(path: Path, cache: str, **view: Any) -> EpisodeDataset:
    return EpisodeDataset(DataSource.parse({"path": str(path), **view}).open(), cache=cache)


def caches(path: Path) -> int:
    return len(list(path.parent.glob(f"{path.name}.cache/*/manifest.json")))


def is_mapped(data: EpisodeDataset) -> bool:
    return all(rows.mapped for rows in data.frames().images.values())


@pytest.mark.parametrize("view", VIEWS)
def test_a_cached_view_gives_what_memory_gives_bit_for_bit(path, view, assert_same_episode) -> None:
    memory, built, again = (dataset(path, cache, **view) for cache in ("never", "always", "auto"))
    assert [is_mapped(data) for data in (memory, built, again)] == [False, True, True]
    for found in (built, again):
        assert found.observation_spec == memory.observation_spec
        assert found.fingerprint == memory.fingerprint
        assert found.stats.success_rate == memory.stats.success_rate
        for (name, a), (_, b) in zip(array_fields(found.frames()), array_fields(memory.frames()), strict=True):
            assert (name, a.dtype, a.tobytes()) == (name, b.dtype, b.tobytes())
        for a, b in zip(found, memory, strict=True):
            assert_same_episode(a, b)
        shape = {"batch_size": 3, "lead": 1, "steps": 3, "lookahead": 1, "seed": 4}
        for a, b in islice(zip(found.segments(**shape), memory.segments(**shape), strict=True), 8):
            assert all(torch.equal(a.images[camera], b.images[camera]) for camera in b.images)
            assert torch.equal(a.rewards, b.rewards)


def test_names_and_labels_cost_nothing_once_the_frames_are_cached(path, monkeypatch) -> None:
    dataset(path, "always")
    monkeypatch.setattr("qtransformer_datasets.robomimic.reader.HDF5Episodes._load", lambda *_: pytest.fail("decoded again"))
    names = {"hand": "wrist", "scene": "front", "deep": "depth"}
    for view in ({"cameras": names}, {"success": False}, {"cameras": names, "success": True, "rewards": "success"}):
        assert is_mapped(dataset(path, "always", **view))
    assert caches(path) == 1


def test_other_pixels_have_a_cache_of_their_own_and_only_what_is_kept_is_stored(path) -> None:
    dataset(path, "always", cameras={"hand": "wrist"}, image_size=3)
    [folder] = path.parent.glob(f"{path.name}.cache/*/")
    assert [file.name for file in folder.glob("image_*.npy")] == ["image_0.npy"]
    dataset(path, "always", cameras={"other": "wrist"}, image_size=3)
    assert caches(path) == 1
    for built, view in enumerate([{"image_size": 2}, {"cameras": ["wrist"]}, {"cameras": ["wrist"], "image_size": 2}], 2):
        found, expected = dataset(path, "always", **view), dataset(path, "never", **view)
        assert found.fingerprint == expected.fingerprint
        assert caches(path) == built


def test_a_view_of_a_changed_source_is_cached_anew(path, make_episode, action_spec) -> None:
    view = {"cameras": {"hand": "wrist"}, "image_size": 3}
    before = dataset(path, "always", **view).fingerprint
    path.unlink()
    with HDF5Writer(path, action_spec, SPEC) as writer:
        writer.append(make_episode(3, 99, observation_spec=SPEC))
    after = dataset(path, "always", **view)
    assert before != after.fingerprint == dataset(path, "never", **view).fingerprint


def test_only_what_memory_has_no_room_for_is_cached_unasked(path) -> None:
    source = DataSource.parse({"path": str(path), "cameras": ["wrist"], "image_size": [3, 4]}).open()
    images = (sum(source.lengths) + len(source)) * 3 * 4 * 3
    assert not is_mapped(EpisodeDataset(source, memory_limit=images))
    assert is_mapped(EpisodeDataset(source, memory_limit=images - 1))


def test_a_damaged_cache_of_a_view_is_built_again(path) -> None:
    view = {"cameras": {"hand": "wrist"}, "image_size": 3}
    before = dataset(path, "always", **view).fingerprint
    [rewards] = path.parent.glob(f"{path.name}.cache/*/rewards.npy")
    rewards.write_bytes(rewards.read_bytes()[:-1] + b"\x01")
    with pytest.warns(UserWarning, match="damaged cache"):
        assert dataset(path, "always", **view).fingerprint == before

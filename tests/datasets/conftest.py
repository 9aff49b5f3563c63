"""Small episodes and files of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.cache import frame_cache
from tests import episodes
from tests.episodes import ACTION_SPEC, OBSERVATION_SPEC, ListSource


def _write_foreign(path: Path, demos: list[Mapping[str, np.ndarray]], env_args: Mapping[str, Any] | None = None) -> Path:
    """A robomimic file as others write it: keys are paths within the demo, attributes only what robomimic demands."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env_args or {"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i, demo in enumerate(demos):
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = len(demo["actions"])
            for name, array in demo.items():
                group[name] = array
    return path


def _foreign_demo(length: int = 4, seed: int = 0, *, next_obs: bool = True, done_at: int | None = -1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (length + 1, 6, 8, 3), np.uint8)
    positions = rng.normal(size=(length + 1, 3))
    dones = np.zeros(length, np.int64)
    if done_at is not None:
        dones[done_at] = 1
    demo = {
        "actions": rng.uniform(-1, 1, (length, 2)),
        "rewards": dones.astype(np.float64),
        "dones": dones,
        "obs/agentview_image": images[:-1],
        "obs/robot0_eef_pos": positions[:-1],
        "obs/robot0_angle": positions[:-1, 0],
        "obs/object": rng.normal(size=(length, 10)),
    }
    if next_obs:
        demo |= {
            "next_obs/agentview_image": images[1:],
            "next_obs/robot0_eef_pos": positions[1:],
            "next_obs/robot0_angle": positions[1:, 0],
        }
    return demo


@pytest.fixture(autouse=True)
def _no_cache_elsewhere(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv(frame_cache.ROOT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def action_spec() -> ActionSpec:
    return ACTION_SPEC


@pytest.fixture(scope="session")
def observation_spec() -> ObservationSpec:
    return OBSERVATION_SPEC


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    return episodes.make_episode


@pytest.fixture(scope="session")
def make_source() -> type[ListSource]:
    return ListSource


@pytest.fixture(scope="session")
def foreign_demo() -> Callable[..., dict[str, np.ndarray]]:
    return _foreign_demo


@pytest.fixture(scope="session")
def write_foreign() -> Callable[..., Path]:
    return _write_foreign


@pytest.fixture(scope="session")
def assert_same_episode() -> Callable[[Episode, Episode], None]:
    def compare(found: Episode, expected: Episode) -> None:
        for name in ("proprio", "actions", "rewards", "terminated", "truncated"):
            a, b = getattr(found, name), getattr(expected, name)
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert a.tobytes() == b.tobytes(), name
        assert found.images.keys() == expected.images.keys()
        for camera, images in expected.images.items():
            assert found.images[camera].dtype == np.uint8
            assert np.array_equal(found.images[camera], images), camera
        for name in ("instruction", "success", "has_final_observation", "info"):
            assert getattr(found, name) == getattr(expected, name), name

    return compare


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Episodes to a finished file of ours."""
    from qtransformer_datasets import HDF5Writer

    def write(episodes: list[Episode], name: str = "demo.hdf5", **attributes: Any) -> Path:
        path = tmp_path / name
        with HDF5Writer(path, ACTION_SPEC, OBSERVATION_SPEC, attributes) as writer:
            for episode in episodes:
                writer.append(episode)
        return path

    return write

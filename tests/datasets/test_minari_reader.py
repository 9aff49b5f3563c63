"""Minari's HDF5 files, as minari writes them."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import EpisodeDataset, create_writer, open_episodes
from qtransformer_datasets.minari_reader import MinariEpisodes

BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-2.0, 0.0], "high": [2.0, 1.0]}


def minari_episode(length: int = 4, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Arrays by their path; terminated at the end."""
    rng = np.random.default_rng(seed)
    episode = {
        "observations/image": rng.integers(0, 256, (length + 1, 6, 8, 3), np.uint8),
        "observations/arm/position": rng.normal(size=(length + 1, 3)),
        "observations/direction": rng.integers(0, 4, length + 1),
        "observations/object": rng.normal(size=(length + 1, 5)),
        "observations/depth": rng.random((length + 1, 6, 8)).astype(np.float32),
        "observations/mission": ["go to the door"] * (length + 1),
        "actions": rng.uniform([-2, 0], [2, 1], (length, 2)),
        "rewards": np.arange(length) / 2,
        "terminations": np.arange(length) == length - 1,
        "truncations": np.zeros(length, bool),
        "infos/success": np.zeros(length + 1, bool),
    }
    return {name: rows for name, rows in (episode | changes).items() if rows is not None}


def write_minari(folder: Path, episodes: list[dict[str, Any]], action_space: dict[str, Any] | None = BOX) -> Path:
    (folder / "data").mkdir(parents=True)
    metadata = {"dataset_id": "door/test-v0", "total_episodes": len(episodes), "data_format": "hdf5"}
    if action_space is not None:
        metadata["action_space"] = json.dumps(action_space)
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for i, episode in enumerate(episodes):
            group = file.create_group(f"episode_{i}")
            group.attrs["id"] = i
            group.attrs["seed"] = np.int64(10 + i)
            for name, rows in episode.items():
                text = isinstance(rows, list)
                group.create_dataset(
                    name, data=rows, dtype=h5py.string_dtype() if text else None, chunks=True if len(rows) else None
                )
    return folder


def test_dict_observations_are_matched_by_name(tmp_path: Path) -> None:
    rows = minari_episode(4)
    source = MinariEpisodes(write_minari(tmp_path / "door", [rows]), control_hz=5.0)
    assert dict(source.observation_spec.cameras) == {"image": (6, 8, 3)}
    assert source.observation_spec.proprio_names == (*(f"arm/position[{i}]" for i in range(3)), "direction")
    assert source.observation_spec.control_hz == 5.0
    assert (source.action_spec.low, source.action_spec.high) == ((-2.0, 0.0), (2.0, 1.0))
    assert source.attributes == {"dataset_id": "door/test-v0", "ignored_observations": ["depth", "object"]}
    assert source.lengths == [4]
    episode = source.read(0)
    assert np.array_equal(episode.images["image"], rows["observations/image"])
    expected = np.column_stack([rows["observations/arm/position"], rows["observations/direction"]]).astype(np.float32)
    assert np.array_equal(episode.proprio, expected)
    np.testing.assert_allclose(source.action_spec.to_units(episode.actions), rows["actions"], atol=1e-6)
    assert episode.rewards.tolist() == [0, 0.5, 1, 1.5]
    assert (episode.instruction, episode.has_final_observation, episode.info) == ("go to the door", True, {"seed": 10})


@pytest.mark.parametrize(
    ("changes", "terminated", "truncated", "success"),
    [
        ({}, True, False, False),  # the file says so: infos/success
        ({"infos/success": np.arange(5) == 4}, True, False, True),
        ({"infos/success": None}, True, False, True),  # nothing said: it terminated with a reward
        ({"infos/success": None, "rewards": np.zeros(4)}, True, False, False),
        ({"terminations": np.zeros(4, bool), "truncations": np.arange(4) == 3, "infos/success": None}, False, True, False),
        ({"truncations": np.arange(4) == 3}, True, True, False),
        ({"terminations": np.zeros(4, bool)}, False, True, False),  # an episode that simply stops
    ],
)
def test_termination_and_truncation_are_kept_apart(tmp_path: Path, changes, terminated, truncated, success) -> None:
    path = write_minari(tmp_path / "door", [minari_episode(4, **changes)])
    episode = MinariEpisodes(path, control_hz=5.0).read(0)
    assert (bool(episode.terminated[-1]), bool(episode.truncated[-1]), episode.success) == (terminated, truncated, success)


def test_box_observations_discrete_actions_and_order(tmp_path: Path) -> None:
    def episode(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return {
            "observations": rng.normal(size=(3, 2)),
            "actions": np.array([3, 5]),
            "rewards": np.zeros(2),
            "terminations": np.zeros(2, bool),
            "truncations": np.array([False, True]),
        }

    space = {"type": "Discrete", "dtype": "int64", "start": 3, "n": 3}
    source = MinariEpisodes(write_minari(tmp_path / "box", [episode(i) for i in range(11)], space), control_hz=1.0)
    assert source.observation_spec.proprio_names == ("observation[0]", "observation[1]")
    assert (source.action_spec.low, source.action_spec.high, source.action_spec.discrete) == ((3.0,), (5.0,), (3,))
    assert [e.info["seed"] for e in source] == list(range(10, 21))
    assert source.read(10).actions.tolist() == [[-1.0], [1.0]]


def test_images_of_a_box_space(tmp_path: Path) -> None:
    rows = minari_episode(2)
    flat = {name: rows[name] for name in ("actions", "rewards", "terminations", "truncations")}
    source = MinariEpisodes(write_minari(tmp_path / "a", [flat | {"observations": rows["observations/image"]}]), control_hz=1.0)
    assert dict(source.observation_spec.cameras) == {"observation": (6, 8, 3)}
    assert source.read(0).proprio.shape == (3, 0)


def test_the_directory_its_data_and_the_file_are_one_dataset(tmp_path: Path) -> None:
    path = write_minari(tmp_path / "door", [minari_episode()])
    for place in (path, path / "data", path / "data" / "main_data.hdf5"):
        source = open_episodes(place, control_hz=5.0)
        assert isinstance(source, MinariEpisodes)
        assert source.lengths == [4]
    assert EpisodeDataset(open_episodes(path, control_hz=5.0)).num_steps == 4
    with pytest.raises(DatasetError, match="minari can be read but not written"):
        create_writer(path, source.action_spec, source.observation_spec, format="minari")


def test_a_lost_final_observation_is_marked(tmp_path: Path) -> None:
    rows = minari_episode(4)
    short = {name: rows[name][:-1] for name in rows if name.startswith("observations/")}
    episode = MinariEpisodes(write_minari(tmp_path / "a", [rows | short]), control_hz=5.0).read(0)
    assert not episode.has_final_observation
    assert np.array_equal(episode.images["image"][-1], episode.images["image"][-2])


def test_what_minari_leaves_unsaid_is_asked_for(tmp_path: Path) -> None:
    path = write_minari(tmp_path / "a", [minari_episode()], action_space=None)
    both = r"say so: dataset={path:.*,control_hz:20,limits:\[\[-1,1\],\[0,1\]\]}, or for a verb of `data` control_hz=20 limits="
    with pytest.raises(DatasetError, match=both):
        MinariEpisodes(path)
    with pytest.raises(DatasetError, match=r"say so: dataset={path:.*,limits:"):
        MinariEpisodes(path, control_hz=5.0)
    with pytest.raises(ConfigError, match="control_hz expected a number above 0, found -1"):
        MinariEpisodes(path, control_hz=-1)
    source = MinariEpisodes(path, control_hz=5.0, limits=[(-4, 4), (0, 1)], proprio=["direction", "object"])
    assert source.action_spec.low == (-4.0, 0.0)
    assert source.observation_spec.proprio_names == ("direction", *(f"object[{i}]" for i in range(5)))
    assert MinariEpisodes(path, control_hz=5.0, limits={"a0": (-4, 4), "a1": (0, 1)}).action_spec.low == (-4.0, 0.0)
    with pytest.raises(ConfigError, match=r"limits expected one pair for each of 2 dimensions, found 1"):
        MinariEpisodes(path, control_hz=5.0, limits=[(-4, 4)])
    with pytest.raises(ConfigError, match="'gps'"):
        MinariEpisodes(path, control_hz=5.0, limits=[(-4, 4), (0, 1)], proprio=["gps"])
    endless = {"type": "Box", "dtype": "float32", "shape": [2], "low": [float("-inf")] * 2, "high": [float("inf")] * 2}
    with pytest.raises(DatasetError, match=r"finite limits.*limits:"):
        MinariEpisodes(write_minari(tmp_path / "b", [minari_episode()], endless), control_hz=5.0)


def test_old_versions_keep_their_metadata_in_the_file(tmp_path: Path) -> None:
    path = write_minari(tmp_path / "a", [minari_episode()])
    (path / "data" / "metadata.json").unlink()
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        file.attrs["action_space"] = json.dumps(BOX)
        file.attrs["dataset_id"] = "old-v1"
    source = MinariEpisodes(path, control_hz=5.0)
    assert (source.attributes["dataset_id"], source.action_spec.low) == ("old-v1", (-2.0, 0.0))


def test_actions_beyond_the_space_are_refused_or_clipped(tmp_path: Path) -> None:
    actions = np.array([[0.0, 0.5], [3.0, 0.5]])
    path = write_minari(tmp_path / "a", [minari_episode(2, actions=actions)])
    with pytest.raises(
        DatasetError,
        match=r"'a0' in 50\.0 % of the steps \(from 0 to 3, limits \[-2, 2\]\); .*limits:{a0:\[0,3\]}, .*clip_actions:true",
    ):
        MinariEpisodes(path, control_hz=5.0).read(0)
    episode = MinariEpisodes(path, control_hz=5.0, clip_actions=True).read(0)
    assert episode.actions.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert episode.info["clipped_actions"] == {"a0": 0.5}


BAD = {
    "no steps": ({"rewards": np.zeros(0)}, "at least one step"),
    "short observations": ({"observations/direction": np.zeros(3, int)}, r"direction expected 5 rows.*found 3"),
    "short flags": ({"terminations": np.zeros(2, bool)}, "terminated expected shape"),
    "NaN": ({"observations/arm/position": np.full((5, 3), np.nan)}, "proprio.*NaN"),
    "other width": ({"actions": np.zeros((4, 3))}, "2 numbers per step, found 3"),
    "missing": ({"rewards": None}, "'rewards'"),
    "two endings": ({"terminations": np.ones(4, bool)}, "only the last step"),
    "rewards of text": ({"rewards": ["a"] * 4}, "numbers"),
    "a single number": ({"truncations": None, "truncations/x": np.zeros(4, bool)}, "expected a dataset, found Group"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_episodes_are_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD[case]
    source = MinariEpisodes(write_minari(tmp_path / "a", [minari_episode(4), minari_episode(4, 1, **changes)]), control_hz=5.0)
    source.read(0)
    with pytest.raises(DatasetError, match=rf"main_data\.hdf5, episode_1.*{message}"):
        source.read(1)


def test_what_is_no_readable_dataset_is_said(tmp_path: Path) -> None:
    (tmp_path / "arrow" / "data").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Arrow or Parquet"):
        open_episodes(tmp_path / "arrow", "minari", control_hz=1.0)
    path = write_minari(tmp_path / "a", [minari_episode()], {"type": "Dict", "subspaces": {}})
    with pytest.raises(DatasetError, match="Box or Discrete, found Dict"):
        MinariEpisodes(path, control_hz=5.0)
    (path / "data" / "metadata.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"metadata\.json: expected JSON"):
        MinariEpisodes(path, control_hz=5.0)
    with pytest.raises(ConfigError, match="did you mean control_hz"):
        open_episodes(path, control_h=5.0)


@pytest.mark.parametrize("place", ["episode_0/observations/arm", "episode_0/observations/image", "episode_0/infos/success"])
def test_links_are_not_followed(tmp_path: Path, place: str) -> None:
    secret = write_minari(tmp_path / "secret", [minari_episode()]) / "data" / "main_data.hdf5"
    path = write_minari(tmp_path / "a", [minari_episode()])
    with h5py.File(path / "data" / "main_data.hdf5", "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink(str(secret), "/" + place)
    with pytest.raises(DatasetError, match="ExternalLink"):
        MinariEpisodes(path, control_hz=5.0).read(0)

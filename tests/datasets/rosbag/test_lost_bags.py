"""Bags that cannot be used: left out on request, whatever is wrong with them, and never without a word."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import EpisodeDataset, open_episodes
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.rosbag.lost_bags import MAX_TOLD


def cut(path: Path) -> None:
    (file,) = (file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    os.truncate(file, file.stat().st_size // 3)


def forget(path: Path) -> None:
    (path / "metadata.yaml").unlink()


@pytest.fixture
def folder(robot, write_bag) -> Callable[..., Path]:
    """Bags a and c are good; b is what is asked for."""

    def write(storage: str = "mcap", spoil: Callable[[Path], object] = lambda path: None, missing: str = "") -> Path:
        for name in ("a", "c"):
            write_bag(robot.demonstration(steps=3), f"all/{name}", storage)
        sent = [s for s in robot.demonstration(steps=3) if s.topic != missing]
        path = write_bag(sent, "all/b", storage)
        spoil(path)
        return path.parent

    return write


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a truncated mcap": ({"spoil": cut}, "damaged bag"),
    "a truncated db3": ({"spoil": cut, "storage": "sqlite3"}, "damaged bag"),
    "no metadata": ({"spoil": forget}, "has no metadata.yaml"),
    "a missing topic": ({"missing": "/gripper"}, "has no topic /gripper"),
    "no outcome": ({"missing": "/outcome"}, "has no topic /outcome"),
}


@pytest.mark.parametrize(("kind", "why"), BROKEN.values(), ids=BROKEN)
def test_skip_leaves_out_a_bag_that_cannot_be_opened_and_names_it(folder, contract_file, kind, why) -> None:
    path, contract = folder(**kind), contract_file()
    with pytest.raises(DatasetError, match=why) as stopped:
        open_episodes(path, contract=contract)
    assert f"{path}/b" in str(stopped.value)
    with pytest.warns(UserWarning, match=rf"{path}: left out 1 of 3 bags: {path}/b.*{why}"):
        source = open_episodes(path, contract=contract, on_bad_episode="skip")
    assert [episode.info["bag"] for episode in source] == ["a", "c"]


def test_skip_leaves_out_single_episodes_beside_whole_bags(robot, write_bag, folder, contract_file) -> None:
    path = folder(spoil=cut)
    beyond = robot.demonstration(steps=3)
    for s in beyond:
        if s.topic == "/gripper":
            s.fields = robot.numbers([7.0])
    write_bag(beyond, "all/d")
    with pytest.warns(UserWarning, match="left out 1 of 4 bags") as told:
        source = open_episodes(path, contract=contract_file(), on_bad_episode="skip")
    assert [episode.info["bag"] for episode in source] == ["a", "c"]
    assert any("skipped 1 of 3 episodes" in str(warning.message) for warning in told)


def test_skip_takes_limits_from_the_episodes_that_can_be_read(robot, write_bag, folder, contract_file) -> None:
    """The gripper of bag d sends two numbers within its episode, where limits of actions are looked for already on opening."""
    path, odd = folder(), robot.demonstration(steps=3)
    [*_, last] = [s for s in odd if s.topic == "/gripper"]
    last.fields = robot.numbers([1.0, 2.0])
    write_bag(odd, "all/d")
    options = {"contract": contract_file(("    low: -1\n    high: 1\n", "")), "limits_from_data": True}
    with pytest.raises(DatasetError, match=r"all/d: /gripper .*expected 1 elements"):
        open_episodes(path, **options)
    with pytest.warns(UserWarning, match="skipped 1 of 4 episodes; the first: .*all/d"):
        source = open_episodes(path, on_bad_episode="skip", **options)
    assert len(source) == 3
    assert np.allclose(source.action_spec.low[0], robot.joint_value(0, 0) + 0.005)


def test_a_folder_without_a_usable_bag_tells_the_first_reasons(robot, write_bag, contract_file) -> None:
    for number in range(MAX_TOLD + 2):
        path = write_bag([s for s in robot.demonstration(steps=2) if s.topic != "/gripper"], f"all/{number}")
    with pytest.raises(DatasetError, match=r"no episode can be read: .*all/0: has no topic /gripper.*; and 2 more$") as caught:
        open_episodes(path.parent, contract=contract_file(), on_bad_episode="skip")
    assert str(caught.value).count("has no topic") == MAX_TOLD


def test_a_training_is_told_which_bags_partial_left_out_and_which_it_read_in_part(robot, write_bag, folder, contract_file) -> None:
    path = folder(missing="/gripper")
    torn = write_bag(robot.demonstration(steps=60), "all/d")
    (file,) = torn.glob("*.mcap")
    os.truncate(file, int(file.stat().st_size * 0.6))
    source = DataSource.parse({"path": str(path), "contract": str(contract_file()), "partial": True})
    with pytest.warns(UserWarning, match="left out") as told:
        dataset = EpisodeDataset([source.open()])
    assert dataset.num_episodes == 3
    (text,) = (str(warning.message) for warning in told if "left out" in str(warning.message))
    assert text.startswith(f"{path}: left out 1 of 4 bags, read 1 of 4 bags in part: {path}/b: ")
    assert "has no topic /gripper" in text
    assert f"{path}/d" in text


@pytest.mark.parametrize("options", [{}, {"partial": True}, {"on_bad_episode": "skip"}], ids=["plain", "partial", "skip"])
def test_good_bags_are_read_without_a_word(folder, contract_file, options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_episodes(folder(), contract=contract_file(), **options)) == 3

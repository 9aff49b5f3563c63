"""Formats are recognised by what lies at a path, and their options are refused by name."""

from pathlib import Path

import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Episodes, HDF5Writer, create_writer, open_episodes
from qtransformer_datasets.formats import format_of


def test_a_file_is_opened_and_written_by_the_adapter_of_its_format(
    tmp_path: Path, action_spec, observation_spec, make_episode
) -> None:
    writer = create_writer(tmp_path / "a.hdf5", action_spec, observation_spec, {"recipe": "mine"})
    assert isinstance(writer, HDF5Writer)
    with writer:
        writer.append(make_episode(4))
    (tmp_path / "a.hdf5").rename(tmp_path / "no_suffix")
    source = open_episodes(tmp_path / "no_suffix")
    assert isinstance(source, HDF5Episodes)
    assert source.lengths == [4]
    assert source.attributes["recipe"] == "mine"


def test_an_option_that_a_format_does_not_have_is_refused_with_the_likely_one(write_file, make_episode) -> None:
    with pytest.raises(ConfigError, match="no option 'done'; did you mean dones"):
        open_episodes(write_file([make_episode(3)]), done="terminated")


def test_a_format_that_does_not_exist_and_a_path_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="robomimic"):
        open_episodes(tmp_path, format="robomimik")
    with pytest.raises(DatasetError, match="found nothing"):
        open_episodes(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match="found none of them"):
        open_episodes(tmp_path / "notes.txt")


def test_a_format_is_told_by_the_first_bytes_without_reading_the_file(write_file, make_episode, monkeypatch) -> None:
    path = write_file([make_episode()])
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail(f"{path} was read as a whole"))
    assert format_of(path.rename(path.with_suffix(".data"))).name == "robomimic"

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
    with pytest.raises(ConfigError, match=r"format expected one of auto, .*, found 'robomimik'; did you mean robomimic\?"):
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


def test_only_formats_that_can_be_written_are_offered_for_writing(tmp_path: Path, action_spec, observation_spec) -> None:
    with pytest.raises(ConfigError, match=r"expected one of auto, robomimic, lerobot, found 'lerobt'; did you mean lerobot\?"):
        create_writer(tmp_path / "a", action_spec, observation_spec, format="lerobt")


def test_a_name_beside_which_something_alike_lies_is_answered_with_it(write_file, make_episode) -> None:
    low, _ = write_file([make_episode(2)], "low.hdf5"), write_file([make_episode(2)], "a.hdf5")
    low.with_name("low.hdf5.cache").mkdir()
    for name in ("lwo.hdf5", "lwo", "low.h5"):
        with pytest.raises(DatasetError, match=rf"found nothing; did you mean {low}\?"):
            open_episodes(low.with_name(name))
    for name in ("b.hdf5", "no_folder/low.hdf5"):
        with pytest.raises(DatasetError, match="found nothing; check the path"):
            open_episodes(low.parent / name)


def test_a_folder_of_datasets_is_told_by_what_it_holds(write_file, make_episode, tmp_path: Path) -> None:
    write_file([make_episode(2)], "train.hdf5")
    only = rf"{tmp_path}: expected a dataset, found a folder that holds train\.hdf5; name one, such as {tmp_path}/train\.hdf5$"
    with pytest.raises(DatasetError, match=only):
        open_episodes(tmp_path)
    for name in "abcdefg":
        write_file([make_episode(1)], f"{name}.hdf5")
    many = rf"a\.hdf5, .* and 2 more; name one, .*a list: dataset=\[{tmp_path}/a\.hdf5,{tmp_path}/b\.hdf5\]"
    with pytest.raises(DatasetError, match=many):
        open_episodes(tmp_path)


@pytest.mark.parametrize("name", ["a.hdf5", "set7"])
def test_what_is_not_finished_is_said_whatever_its_format(
    name: str, tmp_path: Path, action_spec, observation_spec, make_episode
) -> None:
    writer = create_writer(tmp_path / name, action_spec, observation_spec, format="auto" if name == "a.hdf5" else "lerobot")
    writer.append(make_episode(2))
    for asked in (format_of, open_episodes) if name == "set7" else (open_episodes,):
        with pytest.raises(DatasetError, match=rf"not finished, its episodes lie in {tmp_path}/{name}\.partial; .*resume"):
            asked(tmp_path / name)

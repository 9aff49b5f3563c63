"""Every problem of every episode; folders of datasets."""

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.validate import find_datasets, validate


def test_a_good_file_has_none(write_file, make_episode) -> None:
    verdict = validate(DataSource(path=str(write_file([make_episode(2), make_episode(3)]))))
    assert (verdict.episodes, verdict.steps, verdict.problems) == (2, 5, [])


def test_all_that_is_wrong_with_an_episode_is_told(write_file, make_episode) -> None:
    path = write_file([make_episode(3, i) for i in range(3)])
    with h5py.File(path, "r+") as file:
        file["data/demo_1/actions"][0, 0] = 2.0
        file["data/demo_1/rewards"][1] = np.nan
        file["data/demo_1/obs/proprio"][2, 1] = np.inf
        file["data/demo_2/actions"][0, 1] = -7.0
    verdict = validate(DataSource(path=str(path)))
    assert (verdict.episodes, verdict.steps) == (1, 3)
    assert [next(word for word in ("actions", "rewards", "proprio") if f": {word}" in p) for p in verdict.problems] == [
        "actions", "rewards", "proprio", "actions",
    ]  # fmt: skip
    assert all("demo_1" in problem for problem in verdict.problems[:3])
    assert "demo_2" in verdict.problems[3]


def test_what_a_file_leaves_unsaid_does_not_hide_its_other_problems(tmp_path, write_foreign, foreign_demo) -> None:
    demos = [foreign_demo(3, i) for i in range(2)]
    demos[1]["actions"][0, 0] = 3.0
    verdict = validate(DataSource(path=str(write_foreign(tmp_path / "f.hdf5", demos))))
    told = "\n".join(verdict.problems)
    assert "does not say whether `dones`" in told
    assert "demo_1: actions" in told


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89HDF\r\n\x1a\n torn"])
def test_an_unreadable_file_is_a_problem_not_an_error(tmp_path, content) -> None:
    path = tmp_path / "x.hdf5"
    path.write_bytes(content)
    verdict = validate(DataSource(path=str(path)))
    assert verdict.episodes == 0
    assert len(verdict.problems) == 1
    assert str(path) in verdict.problems[0]


def test_a_setting_that_does_not_exist_is_no_problem_of_the_data(write_file, make_episode) -> None:
    with pytest.raises(ConfigError, match="did you mean dones"):
        validate(DataSource(path=str(write_file([make_episode(2)])), options={"done": "terminated"}))


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

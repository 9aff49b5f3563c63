"""Reading in a process of its own: whatever a file does to its reader, the caller gets every problem."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError
from qtransformer_datasets import verify
from qtransformer_datasets.curation.verify import Verifier
from qtransformer_datasets.data_source import DataSource


def put_hang(path: Path) -> Path:
    """A blank object on the heap of strings is followed by itself, for ever: libhdf5 never returns."""
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(raw)
    return path


@pytest.fixture
def crash_at(tmp_path, monkeypatch):
    """Lets the HDF5 reader of child processes crash, or do something else, at some episodes."""

    def plant(condition: str, deed: str = "os.kill(os.getpid(), signal.SIGSEGV)") -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import os, signal, warnings\n"
            "def patch():\n"
            "    from qtransformer_datasets.robomimic.reader import HDF5Episodes as reader\n"
            "    read = reader.read\n"
            f"    reader.read = lambda self, i: {deed} if {condition} else read(self, i)\n"
            "patch()\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))

    return plant


def test_a_good_file_has_no_problems_and_progress_is_told(write_file, make_episode) -> None:
    seen = []
    with Verifier() as verifier:
        verdict = verifier.verify(DataSource(path=str(write_file([make_episode(2), make_episode(3)]))), lambda *at: seen.append(at))
    assert (verdict.lengths, verdict.steps, verdict.problems, verdict.reports) == ({0: 2, 1: 3}, 5, [], [])
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_all_that_is_wrong_with_an_episode_is_told(write_file, make_episode) -> None:
    path = write_file([make_episode(3, i) for i in range(3)])
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = 4
        file["data/demo_1/actions"][0, 0] = 2.0
        file["data/demo_1/rewards"][1] = np.nan
        file["data/demo_1/obs/proprio"][2, 1] = np.inf
        file["data/demo_2/actions"][0, 1] = -7.0
    verdict = verify(path)
    assert verdict.lengths == {0: 3}
    expected = ["total says 4", "demo_1: actions", "demo_1: rewards", "demo_1: proprio", "demo_2: actions"]
    assert [words in problem for words, problem in zip(expected, verdict.problems, strict=True)] == [True] * 5


def test_what_a_file_leaves_unsaid_does_not_hide_its_other_problems(tmp_path, write_foreign, foreign_demo) -> None:
    demos = [foreign_demo(3, i) for i in range(2)]
    demos[1]["actions"][0, 0] = 3.0
    path = write_foreign(tmp_path / "f.hdf5", demos)
    told = "\n".join(verify(path).problems)
    assert "does not say whether `dones`" in told
    assert "demo_1: actions" in told
    assert len(verify(path, dones="terminated").problems) == 1


def test_a_hang_inside_libhdf5_is_one_problem_and_the_next_file_is_read(
    tmp_path, write_foreign, foreign_demo, write_file, make_episode
) -> None:
    hangs = put_hang(write_foreign(tmp_path / "f.hdf5", [foreign_demo()]))
    good = write_file([make_episode(2)])
    with Verifier(timeout=2.0) as verifier:
        bad = verifier.verify(DataSource(path=str(hangs), options={"dones": "terminated"}))
        after = verifier.verify(DataSource(path=str(good)))
    assert bad.lengths == {}
    [problem] = bad.problems
    assert problem == f"{hangs}: its reader hung and was stopped while it was opened; restore the file from its source"
    assert (after.lengths, after.problems) == ({0: 2}, [])


def test_a_reader_that_crashes_at_one_episode_goes_on_after_it(crash_at, write_file, make_episode) -> None:
    path = write_file([make_episode(2 + i, i) for i in range(4)])
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = 99
        file["data/demo_2/rewards"][0] = np.nan
    crash_at("i == 1")
    verdict = verify(path)
    assert verdict.lengths == {0: 2, 3: 5}
    assert "total says 99" in verdict.problems[0]
    assert "episode 1: its reader crashed (SIGSEGV); remove the episode" in verdict.problems[1]
    assert "demo_2: rewards" in verdict.problems[2]
    assert len(verdict.problems) == 3


def test_a_file_whose_every_episode_crashes_is_given_up(crash_at, write_file, make_episode, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[Verifier.__module__], "MAX_STUCK", 2)
    crash_at("True", "os._exit(3)")
    verdict = verify(write_file([make_episode(2, i) for i in range(4)]))
    assert ["exit code 3" in problem for problem in verdict.problems] == [True, True, False]
    assert "those from 2 on were not read" in verdict.problems[2]


def test_a_crash_at_the_last_episode_is_the_last(crash_at, write_file, make_episode) -> None:
    path = write_file([make_episode(2, i) for i in range(2)])
    crash_at("i == 1")
    assert len(verify(path).problems) == 1


def test_warnings_of_the_reader_reach_the_caller_and_what_it_prints_does_not(crash_at, write_file, make_episode) -> None:
    crash_at("print('noise') or warnings.warn('mind this')", "0")
    with pytest.warns(UserWarning, match="mind this"):
        verdict = verify(write_file([make_episode(2)]))
    assert (verdict.lengths, verdict.problems) == ({0: 2}, [])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89HDF\r\n\x1a\n torn", None])
def test_what_cannot_be_opened_is_a_problem(tmp_path, content) -> None:
    path = tmp_path / "x.hdf5"
    if content is not None:
        path.write_bytes(content)
    verdict = verify(path)
    assert verdict.lengths == {}
    [problem] = verdict.problems
    assert str(path) in problem


def test_settings_that_do_not_fit_the_data_are_problems_and_others_are_refused(write_file, make_episode) -> None:
    path = write_file([make_episode(2)])
    assert "image_size expected at most" in verify(path, image_size=99).problems[0]
    with pytest.raises(ConfigError, match="image_size"):
        verify(path, image_size="large")

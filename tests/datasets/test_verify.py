"""Reading in a process of its own: whatever a file does to its reader, the caller gets a list of problems."""

import h5py
import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import verify
from qtransformer_datasets.verify import check_sound


def test_sound_episodes_and_every_problem_are_listed(tmp_path, write_foreign, foreign_demo) -> None:
    demos = [foreign_demo(3 + i, i) for i in range(4)]
    demos[1]["actions"][0, 0] = 3.0
    demos[2]["rewards"] = np.full(5, np.nan)
    path = write_foreign(tmp_path / "f.hdf5", demos)
    verdict = verify(path, dones="terminated")
    assert verdict.lengths == {0: 3, 3: 6}
    assert ["demo_1: actions" in verdict.problems[0], "demo_2: rewards" in verdict.problems[1]] == [True, True]
    assert len(verdict.problems) == 2
    with pytest.raises(DatasetError, match=r"demo_1: actions.*\(and 1 more problems\)"):
        check_sound(path, dones="terminated")


def test_a_hang_inside_libhdf5_is_one_problem(tmp_path, write_foreign, foreign_demo) -> None:
    """A blank object on the heap of strings is followed by itself, for ever."""
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(raw)
    verdict = verify(path, dones="terminated", timeout=2.0)
    assert verdict.lengths == {}
    assert len(verdict.problems) == 1
    assert "hung and was stopped while it was opened" in verdict.problems[0]


def test_a_reader_that_crashes_at_one_episode_goes_on_after_it(tmp_path, monkeypatch, write_file, make_episode) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "def patch():\n"
        "    from qtransformer_datasets.robomimic_hdf5 import HDF5Episodes as reader\n"
        "    read = reader.read\n"
        "    reader.read = lambda self, i: os.kill(os.getpid(), signal.SIGSEGV) if i == 1 else read(self, i)\n"
        "patch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    verdict = verify(write_file([make_episode(2 + i, i) for i in range(3)]))
    assert verdict.lengths == {0: 2, 2: 4}
    assert len(verdict.problems) == 1
    assert "episode 1: its reader crashed (SIGSEGV)" in verdict.problems[0]


def test_what_cannot_be_opened_is_a_problem(tmp_path) -> None:
    assert "found nothing" in verify(tmp_path / "missing.hdf5").problems[0]
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    assert "expected 'data'" in verify(tmp_path / "empty.hdf5").problems[0]

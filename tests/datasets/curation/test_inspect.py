"""The report of a dataset."""

import re

import h5py
import numpy as np
import pytest

from qtransformer_datasets import inspect_dataset


def test_a_good_file_on_one_screen(write_file, make_episode):
    episodes = [make_episode(2 + i, i, end="terminated" if i < 3 else "truncated") for i in range(4)]
    report = inspect_dataset(write_file(episodes, recipe="scripted", seed=12))
    for line in [
        r"episodes +4$",
        r"success +3/4 = 75\.0 % +\(95 % Wilson interval 30\.1 to 95\.4 %\)",
        r"length +min 2 .* median 3 .* max 5 steps",
        r"ends +3 terminated, 1 truncated, 0 without final observation",
        r"rewards +min 0 +max 1 +nonzero in 21\.4 % of steps",
        r"steps +14 +at 10 Hz: 1\.4 s",
        r"wrist +6 x 8 x 3",
        r"dx +m +-0\.05 +0\.05 ",
        r"gripper +1 +0 +1 ",
        r"'pick up the red cube' +4",
        r"recipe +scripted",
        r"seed +12",
        r"problems +none found",
    ]:
        assert re.search(line, report, re.MULTILINE), (line, report)
    assert len(report.splitlines()) < 45
    assert max(map(len, report.splitlines())) <= 140


def test_numbers_are_in_robot_units(write_file, make_episode):
    actions = np.array([[-1, -1], [0, 1], [1, 1]], np.float32)
    report = inspect_dataset(write_file([make_episode(3, actions=actions)]))
    line = next(line for line in report.splitlines() if line.startswith("gripper"))
    assert line.split()[2:7] == ["0", "1", "0", "1", "0.6667"]
    assert re.search(r"\|▄ {14}█\|", line)


def test_actions_at_a_limit_that_float32_rounds_up_are_counted(write_file, make_episode):
    """0.05 is 0.0500000007 in float32, beyond the limit of `dx`."""
    report = inspect_dataset(write_file([make_episode(3, actions=np.ones((3, 2), np.float32))]))
    line = next(line for line in report.splitlines() if line.startswith("dx"))
    assert re.search(r"\| {15}█\|", line)


def test_all_problems_are_listed(tmp_path, write_foreign, foreign_demo):
    demos = [foreign_demo(3, i) for i in range(5)]
    demos[1]["actions"][0, 0] = 3.0
    demos[3]["rewards"] = np.full(3, np.nan)
    report = inspect_dataset(write_foreign(tmp_path / "f.hdf5", demos))
    assert "episodes      3 (2 more unreadable)" in report
    for text in ("does not say whether `dones`", "demo_1: actions", "demo_3: rewards"):
        assert text in report
    assert "problems      4" in report  # with the note on what is shown
    assert "at 20 Hz" in report, "it tells its rate, so that no stand-in takes its place"


def test_stand_ins_stand_only_for_what_is_unsaid(tmp_path, write_foreign, foreign_demo):
    unsaid = write_foreign(tmp_path / "f.hdf5", [foreign_demo(3)], {"env_name": "x"})
    assert "shown as if control_hz=1 dones=terminated" in inspect_dataset(unsaid)
    cameras = foreign_demo(3) | {"obs/agentview_image": np.zeros((3, 6, 8, 4), np.uint8)}
    report = inspect_dataset(write_foreign(tmp_path / "g.hdf5", [cameras]))
    for text in ("problems      2", "does not say whether `dones`", "expected images (h, w, 3)"):
        assert text in report, "one problem does not hide the other"


def test_a_wrong_total_is_a_problem(write_file, make_episode):
    path = write_file([make_episode(3)])
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = 4
    assert "total says 4 steps, its demos have 3" in inspect_dataset(path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"nonsense"])
def test_unreadable_files_are_reported_not_raised(tmp_path, content):
    path = tmp_path / "x.hdf5"
    path.write_bytes(content)
    assert "problems      1" in inspect_dataset(path)
    assert "found nothing" in inspect_dataset(tmp_path / "missing.hdf5")

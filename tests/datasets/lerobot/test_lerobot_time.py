"""Frames are matched to rows by their times: what is off the grid or missing is refused, never replaced."""

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes
from tests.datasets.lerobot.raw_datasets import CAMERA, DATA_FILE, EPISODES_FILE


def test_a_missing_frame_is_named_with_wanted_and_found_times_and_never_replaced(tmp_path, write_v2, three, raw_episode):
    path = write_v2(tmp_path / "set", three)
    short = write_v2(tmp_path / "short", [raw_episode(1, 7, task=1)])
    video = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    (path / video).write_bytes((short / video).read_bytes())
    source = LeRobotEpisodes(path, success="all")
    source.read(0)
    with pytest.raises(
        DatasetError,
        match=r"episode 1, camera 'wrist': step 7 wants the frame at 0.7000 s, the video has 0.6000 s around it",
    ):
        source.read(1)


@pytest.mark.parametrize("late", [0.02, 0.0005, -0.0005])
def test_times_off_the_grid_are_refused_beyond_the_tolerance(tmp_path, write_v3, three, edit_table, assert_colours, late):
    path = write_v3(tmp_path / "set", three)

    def shift(columns):
        columns["timestamp"] = [np.float32(t + (late if t > 0.15 else 0)) for t in columns["timestamp"]]

    edit_table(path / DATA_FILE, shift)
    with pytest.raises(DatasetError, match=rf"step 2 wants the frame at {0.2 + late:.4f} s, the video has .*0.2000 s"):
        LeRobotEpisodes(path, success="all").read(0)
    source = LeRobotEpisodes(path, success="all", tolerance_s=0.021)
    assert_colours(source.read(0).images["wrist"], three[0])


def test_a_tolerance_of_half_a_frame_would_blur_neighbours(tmp_path, write_v3, three):
    path = write_v3(tmp_path / "set", three)
    with pytest.raises(ConfigError, match=r"less than half a frame, 0.05 s, found 0.06"):
        LeRobotEpisodes(path, success="all", tolerance_s=0.06)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["timestamp"].__setitem__(7, c["timestamp"][6]), r"timestamps expected 1/10 s apart.* in rows 1 and 2"),
        (lambda c: c["timestamp"].__setitem__(13, 1.0), r"timestamps expected 1/10 s apart.* in rows 7 and 8"),
        (lambda c: c["frame_index"].__setitem__(6, 4), r"frame_index expected 1 in row 1, found 4"),
        (lambda c: c["timestamp"].__setitem__(7, float("nan")), r"timestamps expected 1/10 s apart"),
    ],
    ids=["twice", "gap", "row lost", "nan"],
)
def test_broken_time_is_refused_where_it_breaks_and_can_be_left_out(tmp_path, write_v3, three, edit_table, edit, message):
    path = write_v3(tmp_path / "set", three)
    edit_table(path / DATA_FILE, edit)
    source = LeRobotEpisodes(path, success="all")
    with pytest.raises(DatasetError, match="episode 1: " + message):
        source.read(1)
    assert [len(e) for e in LeRobotEpisodes(path, success="all", episodes=[0, 2])] == [5, 4]


@pytest.mark.parametrize("fps", [6, 9, 11, 30])
def test_times_at_another_rate_than_the_declared_one_are_refused(tmp_path, write, three, edit_info, fps):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info.update(fps=fps))
    with pytest.raises(DatasetError, match=rf"episode 0: timestamps expected 1/{fps} s .*fps {fps}, found 0\.1 s \(10 Hz\)"):
        LeRobotEpisodes(path, success="all").read(0)


def test_a_video_mapping_that_does_not_fit_the_rows_is_refused(tmp_path, write_v3, three, edit_table):
    def change(name, row, value):
        return lambda columns: columns[name].__setitem__(row, value)

    path = write_v3(tmp_path / "set", three)
    edit_table(path / EPISODES_FILE, change(f"videos/{CAMERA}/to_timestamp", 2, 1.6))
    with pytest.raises(DatasetError, match=r"episode 2, camera 'wrist': has 4 rows, but meta/episodes gives it 2.0 frames"):
        LeRobotEpisodes(path, success="all").read(2)
    edit_table(path / EPISODES_FILE, change(f"videos/{CAMERA}/from_timestamp", 2, 1.2))
    with pytest.raises(DatasetError, match=r"episode 2.*same part of a video to episode 1"):
        LeRobotEpisodes(path, success="all").read(2)
    edit_table(path / EPISODES_FILE, change(f"videos/{CAMERA}/from_timestamp", 2, None))
    with pytest.raises(DatasetError, match=r"episode 2: expected file and times of its video"):
        LeRobotEpisodes(path, success="all")
    edit_table(path / EPISODES_FILE, lambda columns: [column.pop() for column in columns.values()])
    with pytest.raises(DatasetError, match=r"episode 2.*meta/episodes does not say where its video is"):
        LeRobotEpisodes(path, success="all").read(2)
    edit_table(path / EPISODES_FILE, change("episode_index", 1, 0))
    with pytest.raises(DatasetError, match="episode 0 is described twice"):
        LeRobotEpisodes(path, success="all")

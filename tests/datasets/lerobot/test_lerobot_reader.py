"""LeRobotDatasets of both versions become episodes: by value, by name and by time, and nothing is guessed in silence."""

import json
import warnings

import numpy as np
import pyarrow as pa
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import EpisodeDataset, open_episodes, verify
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes

CAMERA = "observation.images.wrist"
DATA_FILE = "data/chunk-000/file-000.parquet"
VIDEO_FILE = f"videos/{CAMERA}/chunk-000/file-000.mp4"
EPISODES_FILE = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(params=["v2", "v3"])
def write(request, write_v2, write_v3):
    return {"v2": write_v2, "v3": write_v3}[request.param]


@pytest.fixture
def three(raw_episode):
    return [raw_episode(0, 5), raw_episode(1, 9, task=1), raw_episode(2, 4)]


@pytest.mark.parametrize(
    ("dtype", "codec", "gop"),
    [("video", "libx264", 2), ("video", "libx264", 250), ("video", "libsvtav1", 2), ("image", "", 0)],
    ids=["h264", "h264 one keyframe", "av1", "png"],
)
def test_both_versions_give_rows_frames_tasks_and_names(tmp_path, write, three, assert_colours, dtype, codec, gop):
    source = open_episodes(write(tmp_path / "set", three, dtype=dtype, codec=codec, gop=gop), success="all")
    assert isinstance(source, LeRobotEpisodes)
    assert source.lengths == [5, 9, 4]  # info.json says 50 episodes
    assert source.observation_spec.cameras == {"wrist": (64, 96, 3)}
    assert source.observation_spec.control_hz == 10.0
    assert source.observation_spec.proprio_names == source.action_spec.names == ("shoulder.pos", "gripper.pos")
    assert source.attributes["robot_type"] == "so100"
    episodes = list(source)
    for raw, episode in zip(three, episodes, strict=True):
        assert np.array_equal(episode.proprio[:-1], raw.state)
        assert np.allclose(source.action_spec.to_units(episode.actions), raw.action, atol=1e-6)
        assert_colours(episode.images["wrist"], raw)
        assert np.allclose(episode.timestamps, np.arange(raw.length + 1) / 10, atol=1e-6)
        assert not episode.has_final_observation
    assert [e.instruction for e in episodes] == ["task 0", "task 1", "task 0"]
    assert_colours(source.read(1).images["wrist"], three[1])
    with pytest.raises(DatasetError, match="expected an episode from 0 to 2, found 3"):
        source.read(3)


def test_limits_are_the_extremes_of_all_episodes_and_options_go_by_name(tmp_path, write, three):
    actions = np.concatenate([raw.action for raw in three])
    path = write(tmp_path / "set", three)
    spec = LeRobotEpisodes(path, success="all").action_spec
    assert spec.low == tuple(actions.min(0))
    assert spec.high == tuple(actions.max(0))
    assert spec.units == ("1", "1")
    source = LeRobotEpisodes(
        path,
        success="all",
        limits={"gripper.pos": [-10, 30]},
        discrete={"gripper.pos": 2},
        units={"shoulder.pos": "rad"},
    )
    assert source.action_spec.low == (actions[:, 0].min(), -10.0)
    assert source.action_spec.high == (actions[:, 0].max(), 30.0)
    assert source.action_spec.discrete == (0, 2)
    assert source.action_spec.units == source.observation_spec.proprio_units == ("rad", "1")
    scaled = np.concatenate([e.actions for e in source])
    assert np.allclose(scaled[:, 1], (actions[:, 1] - 10) / 20, atol=1e-6)
    for options in ({"limits": {"grip.pos": [0, 1]}}, {"discrete": {"gripper": 2}}, {"units": {"gripper-pos": "m"}}):
        with pytest.raises(ConfigError, match=r"does not exist; did you mean gripper.pos"):
            LeRobotEpisodes(path, success="all", **options)
    narrow = LeRobotEpisodes(path, success="all", limits={"gripper.pos": [0, 1]})
    with pytest.raises(
        DatasetError,
        match=r"'gripper.pos' in .* \(from .*, limits \[0, 1\]\); .*limits:{gripper.pos:\[.*clip_actions:true",
    ):
        list(narrow)


def test_actions_beyond_the_limits_can_be_clipped_as_the_refusal_says(tmp_path, write, three):
    path, limits = write(tmp_path / "set", three), {"gripper.pos": [0, 1]}
    as_logged = list(LeRobotEpisodes(path, success="all", limits={"gripper.pos": [-10, 30]}))
    clipped = list(LeRobotEpisodes(path, success="all", limits=limits, clip_actions=True))
    for logged, episode in zip(as_logged, clipped, strict=True):
        positions = logged.actions[:, 1] * 20 + 10  # back from the limits -10 and 30
        assert np.allclose(episode.actions[:, 1], np.clip(2 * positions - 1, -1, 1), atol=1e-4)
        assert np.array_equal(episode.actions[:, 0], logged.actions[:, 0])
        outside = float(((positions < 0) | (positions > 1)).mean())
        assert episode.info.get("clipped_actions", {}).get("gripper.pos", 0.0) == pytest.approx(outside)
    assert any("clipped_actions" in episode.info for episode in clipped), "nothing lay outside: nothing is tested"


@pytest.mark.parametrize("value", [1e4, -1e30])
def test_an_action_that_stretches_its_limits_is_told_with_what_helps(tmp_path, write, raw_episode, value) -> None:
    """Beyond 1e7, scaled float32 actions are all one: it must be seen before they are scaled."""
    episodes = [raw_episode(index, 40) for index in range(3)]
    others = np.concatenate([episode.action[:, 0] for episode in episodes])
    episodes[1].action[7, 0] = value
    others = np.delete(others, 47)
    path = write(tmp_path / "set", episodes)
    with pytest.warns(UserWarning, match="expected near its other values") as told:
        LeRobotEpisodes(path, success="all")
    [message] = [str(warning.message) for warning in told]
    limits = f"[{others.min():.4g},{others.max():.4g}]"
    assert f"{path}, episode 1, step 7: action 'shoulder.pos'" in message
    assert f"found {value:.4g}; limits reach to that" in message
    assert f"limits:{{shoulder.pos:{limits}}},clip_actions:true" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        helped = LeRobotEpisodes(path, success="all", limits={"shoulder.pos": json.loads(limits)}, clip_actions=True)
    assert np.ptp(helped.read(0).actions[:, 0]) > 1.5
    with pytest.warns(UserWarning, match="expected near its other values"):
        verify(path, success="all")


def test_a_constant_action_and_a_nan_leave_the_limits_sound(tmp_path, write, raw_episode):
    raw = raw_episode(0, 4)
    raw.action[:, 1] = 7.0
    raw.action[2, 0] = np.nan
    source = LeRobotEpisodes(write(tmp_path / "set", [raw]), success="all")
    assert (source.action_spec.low[1], source.action_spec.high[1]) == (6.0, 8.0)
    with pytest.raises(DatasetError, match="actions expected finite numbers, found NaN or infinity first in row 2"):
        source.read(0)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ("action_0", "action_1")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ({"motors": [["a"], ["b"]]}, ("a", "b")),
        (["axis"], ("action_0", "action_1")),
        ([[[[[["a", "b"]]]]]], ("action_0", "action_1")),
    ],
)
def test_names_come_in_many_forms(tmp_path, write, three, edit_info, names, expected):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"]["action"].update(names=names))
    assert LeRobotEpisodes(path, success="all").action_spec.names == expected


@pytest.mark.parametrize(("names", "found"), [(["a", "a"], "found 2 of which some are the same"), (["a", "b", "c"], "found 3")])
def test_names_that_do_not_fit_are_told(tmp_path, write, three, edit_info, names, found):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"]["action"].update(names=names))
    with pytest.warns(UserWarning, match=f"names of 'action' expected one for each of its 2 values, {found} .*called action_0"):
        assert LeRobotEpisodes(path, success="all").action_spec.names == ("action_0", "action_1")


@pytest.mark.parametrize("spelling", ["task", "__index_level_0__"])
def test_tasks_have_had_several_spellings(tmp_path, write_v3, three, spelling):
    assert LeRobotEpisodes(write_v3(tmp_path / "a", three, task_column=spelling), success="all").read(1).instruction == "task 1"


def test_tasks_as_lines_in_v3_and_no_tasks_at_all(tmp_path, write_v3, three):
    path = write_v3(tmp_path / "set", three)
    (path / "meta/tasks.parquet").unlink()
    assert LeRobotEpisodes(path, success="all").read(1).instruction == ""
    (path / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "x"}\n\n{"task_index": 1, "task": "y"}\n')
    assert LeRobotEpisodes(path, success="all").read(1).instruction == "y"
    (path / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "x"}\n')
    with pytest.raises(DatasetError, match=r"episode 1: task_index 1 is not among the 1"):
        LeRobotEpisodes(path, success="all").read(1)


def test_episodes_are_found_by_value_whatever_is_missing_before_them(tmp_path, write, raw_episode, assert_colours):
    raws = [raw_episode(7, 4), raw_episode(3, 6)]  # out of order, with gaps
    source = LeRobotEpisodes(write(tmp_path / "set", raws), success=[3])
    assert source.lengths == [6, 4]
    for raw, episode in zip(raws[::-1], source, strict=True):
        assert episode.info == {"episode_index": raw.index}
        assert np.array_equal(episode.proprio[:-1], raw.state)
        assert_colours(episode.images["wrist"], raw)
        assert episode.success == (raw.index == 3)
    assert LeRobotEpisodes(source.path, success=[7], episodes=[7]).lengths == [4]
    with pytest.raises(DatasetError, match=r"episodes \[0\] have no data"):
        LeRobotEpisodes(source.path, episodes=[0])
    with pytest.raises(DatasetError, match=r"success names episodes \[1\]"):
        LeRobotEpisodes(source.path, success=[1])


def test_no_other_files_are_read_for_lengths(tmp_path, write, three, monkeypatch):
    source = LeRobotEpisodes(write(tmp_path / "set", three), success="all")
    monkeypatch.setattr("qtransformer_datasets.lerobot.reader.read_frames", lambda *_: pytest.fail("decoded a frame"))
    assert source.lengths == [5, 9, 4]


# --- how an episode went


def scalar(values, dtype=np.float32):
    return pa.array(np.asarray(values, dtype))


def flag(name):
    return {name: {"dtype": "bool", "shape": [1], "names": None}}


REWARD = {"next.reward": {"dtype": "float32", "shape": [1], "names": None}}


def test_demonstrations_succeed_unless_somebody_says_otherwise(tmp_path, write, three):
    path = write(tmp_path / "set", three)
    with pytest.warns(UserWarning, match=r"no rewards; every episode is taken for a successful demonstration"):
        source = LeRobotEpisodes(path)
    for episode in source:
        assert episode.rewards.tolist() == [0.0] * (len(episode) - 1) + [1.0]
        assert episode.success
        assert episode.terminated[-1]
        assert not episode.truncated.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed = LeRobotEpisodes(path, success="none").read(0)
    assert not failed.success
    assert failed.rewards.sum() == 0
    assert failed.truncated[-1]
    assert not failed.terminated.any()
    assert EpisodeDataset(LeRobotEpisodes(path, success="none")).frames().lost_final.sum() == 3
    with pytest.raises(ConfigError, match="success expected all, none or a list"):
        LeRobotEpisodes(path, success="some")


def test_what_the_columns_say_is_believed(tmp_path, write, raw_episode):
    raws = [
        raw_episode(0, 3, **{"next.reward": scalar([0, 0.5, 2]), "next.success": scalar([0, 0, 1], bool)}),
        raw_episode(1, 3, **{"next.reward": scalar([0, 0.5, 0.25]), "next.success": scalar([0, 0, 0], bool)}),
    ]
    source = LeRobotEpisodes(write(tmp_path / "set", raws, features=REWARD | flag("next.success")))
    win, loss = source
    assert win.rewards.tolist() == [0, 0.5, 2]
    assert loss.rewards.tolist() == [0, 0.5, 0.25]
    assert (win.success, win.terminated[-1], win.truncated[-1]) == (True, True, False)
    assert (loss.success, loss.terminated[-1], loss.truncated[-1]) == (False, False, True)


def test_truncated_and_done_columns_part_a_time_limit_from_a_failure(tmp_path, write, raw_episode):
    def raw(index, done, truncated):
        return raw_episode(
            index,
            2,
            **{
                "next.reward": scalar([0, 0]),
                "next.done": scalar([0, done], bool),
                "next.truncated": scalar([0, truncated], bool),
            },
        )

    path = write(tmp_path / "set", [raw(0, 1, 0), raw(1, 1, 1), raw(2, 0, 0)], features=REWARD | flag("next.done"))
    ends = [(bool(e.terminated[-1]), bool(e.truncated[-1])) for e in LeRobotEpisodes(path)]
    assert ends == [(True, False), (False, True), (False, True)]


def test_success_is_refused_where_the_dataset_says_it(tmp_path, write, raw_episode):
    raws = [raw_episode(0, 3, **{"next.success": scalar([0, 0, 1], bool)})]
    path = write(tmp_path / "set", raws, features=flag("next.success"))
    for said in ("none", "all", [0]):
        with pytest.raises(DatasetError, match=r"set: success:.* is for datasets that do not say .*data relabel"):
            LeRobotEpisodes(path, success=said)
    assert LeRobotEpisodes(path).read(0).success


def test_rewards_that_do_not_tell_success_and_a_done_in_the_middle_are_refused(tmp_path, write, raw_episode):
    dense = raw_episode(0, 3, **{"next.reward": scalar([0.1, 0.2, 0.3])})
    path = write(tmp_path / "dense", [dense], features=REWARD)
    with pytest.raises(DatasetError, match="episode 0: rewards other than 0 and 1 do not tell whether it succeeded; say so"):
        LeRobotEpisodes(path).read(0)
    episode = LeRobotEpisodes(path, success=[0]).read(0)
    assert episode.success
    assert episode.rewards.tolist() == np.float32([0.1, 0.2, 0.3]).tolist()
    sparse = raw_episode(0, 3, **{"next.reward": scalar([0, 1, 0])})
    assert LeRobotEpisodes(write(tmp_path / "sparse", [sparse], features=REWARD)).read(0).success
    early = raw_episode(0, 3, **{"next.done": scalar([0, 1, 0], bool)})
    with pytest.raises(DatasetError, match=r"next.done expected at the last step only, found at step 1 of 3"):
        LeRobotEpisodes(write(tmp_path / "early", [early], features=flag("next.done")), success="all").read(0)


# --- features


def test_cameras_and_proprio_are_chosen_by_name(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    source = LeRobotEpisodes(path, success="all", cameras=[], proprio=["action", "observation.state"])
    episode = source.read(0)
    assert episode.images == {}
    assert np.array_equal(episode.proprio[:-1], np.concatenate([three[0].action, three[0].state], axis=1))
    assert source.observation_spec.proprio_names[2] == "observation.state.shoulder.pos"
    with pytest.raises(ConfigError, match=r"cameras: 'wirst' does not exist; did you mean wrist"):
        LeRobotEpisodes(path, cameras=["wirst"])
    with pytest.raises(DatasetError, match=r"expected a feature 'actions', found .*did you mean action.*action="):
        LeRobotEpisodes(path, action="actions")
    with pytest.raises(DatasetError, match=r"expected a feature 'state'.*proprio="):
        LeRobotEpisodes(path, proprio=["state"])


@pytest.mark.parametrize("key", ["info", "video_info"])
@pytest.mark.parametrize("word", ["video.is_depth_map", "is_depth_map"])
def test_depth_maps_are_skipped_with_a_warning(tmp_path, write, three, edit_info, key, word):
    path = write(tmp_path / "set", three)
    depth = {"dtype": "video", "shape": [64, 96, 1], "names": None, key: {word: True}}
    edit_info(path, lambda info: info["features"].update({"observation.images.depth": depth}))
    with pytest.warns(UserWarning, match=r"observation.images.depth' is a depth map and is skipped"):
        assert list(LeRobotEpisodes(path, success="all").observation_spec.cameras) == ["wrist"]


@pytest.mark.parametrize(("shape", "names"), [([3, 64, 96], None), ([3, 64, 96], ["channels", "height", "width"])])
def test_shapes_that_put_channels_first_mean_the_same_images(tmp_path, write, three, edit_info, assert_colours, shape, names):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=shape, names=names))
    source = LeRobotEpisodes(path, success="all")
    assert source.observation_spec.cameras == {"wrist": (64, 96, 3)}
    assert_colours(source.read(0).images["wrist"], three[0])


def test_a_camera_that_is_not_rgb_or_of_another_size_is_refused_before_training(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=[64, 96, 1]))
    with pytest.raises(DatasetError, match=r"camera 'wrist' expected RGB images"):
        LeRobotEpisodes(path)
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=[640, 960, 3]))
    with pytest.raises(DatasetError, match=r"info.json says \(640, 960, 3\), its video has \(64, 96\)"):
        LeRobotEpisodes(path)


def test_two_features_of_one_camera_are_refused(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"].update({"observation.wrist": info["features"][CAMERA]}))
    with pytest.raises(DatasetError, match=r"both camera 'wrist'; rename one"):
        LeRobotEpisodes(path)


def test_a_width_that_the_data_does_not_have_is_refused(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    edit_info(path, lambda info: info["features"]["action"].update(shape=[3]))
    with pytest.raises(DatasetError, match=r"column 'action' expected 3 values per row .* found 2"):
        LeRobotEpisodes(path)


def test_ragged_lists_and_empty_cells_are_refused(tmp_path, write_v3, three, edit_table):
    path = write_v3(tmp_path / "set", three)
    edit_table(path / DATA_FILE, lambda columns: columns["action"].__setitem__(3, [1.0]))
    with pytest.raises(DatasetError, match="column 'action' expected lists of one length"):
        LeRobotEpisodes(path)
    edit_table(path / DATA_FILE, lambda columns: columns["action"].__setitem__(3, None))
    with pytest.raises(DatasetError, match="column 'action' expected lists of one length"):
        LeRobotEpisodes(path)


# --- images in the table


def edit_cell(path, step, edit, edit_table):
    def change(columns):
        columns[CAMERA][step] = edit(columns[CAMERA][step])

    edit_table(path / DATA_FILE, change)


def test_images_may_be_jpeg_or_lie_beside_the_table(tmp_path, write_v3, three, edit_table, jpeg_bytes, colours):
    path = write_v3(tmp_path / "set", three, dtype="image")
    (path / "images").mkdir()
    (path / "images/a.jpg").write_bytes(jpeg_bytes(three[0].frames[4]))
    edit_cell(path, 0, lambda _: {"bytes": jpeg_bytes(three[0].frames[3]), "path": None}, edit_table)
    edit_cell(path, 1, lambda _: {"bytes": None, "path": "images/a.jpg"}, edit_table)
    filled = jpeg_bytes(three[0].frames[4]).replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)  # fill bytes before a marker
    edit_cell(path, 2, lambda _: {"bytes": filled, "path": None}, edit_table)
    found = colours(LeRobotEpisodes(path, success="all").read(0).images["wrist"])
    assert np.allclose(found[:3], [(20, 54, 176), (20, 62, 168), (20, 62, 168)], atol=3)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda cell: {**cell, "bytes": cell["bytes"][:-20]}, "found damage"),
        (lambda cell: {**cell, "bytes": cell["bytes"][:60] + b"\0" + cell["bytes"][61:]}, "wrong checksum"),
        (lambda cell: {**cell, "bytes": b""}, "found damage"),
        (lambda cell: {"bytes": None, "path": None}, "found none"),
        (lambda cell: {"bytes": None, "path": "../../secret.png"}, "leads out of the dataset"),
        (lambda cell: {"bytes": None, "path": "/etc/passwd"}, "leads out of the dataset"),
        (lambda cell: {"bytes": None, "path": "gone.png"}, "found nothing"),
    ],
)
def test_a_bad_image_is_named_by_episode_camera_and_step(tmp_path, write_v3, three, edit_table, edit, message):
    path = write_v3(tmp_path / "set", three, dtype="image")
    edit_cell(path, 6, edit, edit_table)
    source = LeRobotEpisodes(path, success="all")
    source.read(0)
    with pytest.raises(DatasetError, match=message) as caught:
        source.read(1)
    assert "episode 1, camera 'wrist', step 1" in str(caught.value) or "gone.png" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 96), np.uint8), "found grey uint8"),
        (np.zeros((64, 96, 4), np.uint8), "found RGBA uint8"),
        (np.zeros((64, 96, 3), np.uint16), "found other uint16"),
        (np.zeros((8, 96, 3), np.uint8), "expected an image of 64 x 96, found 8 x 96"),
    ],
)
def test_images_that_are_not_the_declared_rgb_are_refused(tmp_path, write_v3, three, edit_table, image, message):
    import cv2

    path = write_v3(tmp_path / "set", three, dtype="image")
    edit_cell(path, 0, lambda _: {"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None}, edit_table)
    with pytest.raises(DatasetError, match=message):
        LeRobotEpisodes(path, success="all").read(0)


# --- time


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


def test_one_index_for_two_episodes_is_refused(tmp_path, write_v3, three, edit_table):
    path = write_v3(tmp_path / "set", three, dtype="image")
    edit_table(path / DATA_FILE, lambda c: c.update(episode_index=[0 if e == 2 else e for e in c["episode_index"]]))
    with pytest.raises(DatasetError, match=r"episode 0 begins at row 14, but has rows from 0 on"):
        LeRobotEpisodes(path)


def test_the_version_and_the_rate_must_be_known(tmp_path, write, three, edit_info):
    path = write(tmp_path / "set", three)
    for version in ("v1.6", "v4.0", None, "latest"):
        edit_info(path, lambda info, version=version: info.update(codebase_version=version))
        with pytest.raises(DatasetError, match=r"codebase_version expected v2.0, v2.1 or v3.0"):
            LeRobotEpisodes(path)
    edit_info(path, lambda info: info.update(codebase_version="v2.0" if "episode_chunk" in info["data_path"] else "v3.0", fps=0))
    with pytest.raises(DatasetError, match="fps expected a rate above 0"):
        LeRobotEpisodes(path)
    (path / "meta/info.json").write_text(json.dumps([1]))
    with pytest.raises(DatasetError, match="expected an object with 'features'"):
        LeRobotEpisodes(path)


def test_indices_that_are_no_whole_numbers_are_refused(tmp_path, write_v3, three, edit_table):
    for column in ("episode_index", "frame_index", "task_index"):
        path = write_v3(tmp_path / column, three)
        edit_table(path / DATA_FILE, lambda c, column=column: c.update({column: [float("nan"), *map(float, c[column][1:])]}))
        with pytest.raises(DatasetError, match=rf"column '{column}' expected whole numbers, found float64"):
            LeRobotEpisodes(path, success="all").read(0)

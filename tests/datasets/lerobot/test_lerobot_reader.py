"""LeRobotDatasets of both versions become episodes: by value, by name and by time, and nothing is guessed in silence."""

import json
import warnings

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import open_episodes, verify
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes
from tests.datasets.lerobot.raw_datasets import DATA_FILE


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

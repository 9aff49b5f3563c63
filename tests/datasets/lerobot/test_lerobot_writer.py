"""What is written comes back to the last bit, LeRobot finds all it looks for, and a killed writer loses nothing it had finished."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets import HDF5Episodes, HDF5Writer, create_writer, open_episodes
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes
from qtransformer_datasets.lerobot.writer import LeRobotWriter

VIDEO_SPEC = ObservationSpec(
    cameras={"wrist": (64, 96, 3), "front": (96, 64, 3)}, proprio_names=("x", "y"), proprio_units=("m", "m"), control_hz=7.5
)


def assert_same(found, expected, assert_same_episode):
    assert_same_episode(found, expected)
    assert (found.timestamps is None) == (expected.timestamps is None)
    if expected.timestamps is not None:
        assert found.timestamps.tobytes() == expected.timestamps.tobytes()


def repeat_last(episode):
    """The convention for a lost final observation."""
    for rows in [episode.proprio, *episode.images.values()]:
        rows[-1] = rows[-2]


def assert_comes_back(folder, episodes, action_spec, observation_spec, assert_same_episode):
    """HDF5 to LeRobot to HDF5 keeps everything."""
    with HDF5Writer(folder / "a.hdf5", action_spec, observation_spec, {"recipe": "test", "robot_type": "arm"}) as writer:
        for episode in episodes:
            writer.append(episode)
    before = HDF5Episodes(folder / "a.hdf5")
    with create_writer(folder / "b", before.action_spec, before.observation_spec, before.attributes, format="lerobot") as writer:
        for episode in before:
            writer.append(episode)
        assert len(writer) == len(episodes)
    between = open_episodes(folder / "b", format="lerobot")
    with HDF5Writer(folder / "c.hdf5", between.action_spec, between.observation_spec, between.attributes) as writer:
        for episode in between:
            writer.append(episode)
    after = HDF5Episodes(folder / "c.hdf5")
    assert after.action_spec == action_spec
    assert after.observation_spec == observation_spec
    assert after.attributes == {"recipe": "test", "robot_type": "arm"}
    assert between.lengths == after.lengths == [len(episode) for episode in episodes]
    for episode, back, direct in zip(episodes, after, between, strict=True):
        assert_same(back, episode, assert_same_episode)
        assert_same(direct, episode, assert_same_episode)
    assert_same(between.read(len(episodes) - 1), episodes[-1], assert_same_episode)


@settings(max_examples=4, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    proprio=st.integers(0, 4),
    actions=st.integers(1, 5),
    low=st.sampled_from([-0.1, -1e-3, -1e4]),
    hz=st.sampled_from([10.0, 7.5, 29.97, 1 / 3]),
)
def test_a_round_trip_keeps_every_number(tmp_path_factory, make_episode, assert_same_episode, lengths, proprio, actions, low, hz):
    action_spec = ActionSpec(
        names=tuple(f"a{i}" for i in range(actions)),
        low=(low,) * actions,
        high=(0.3,) * actions,
        units=("m",) * actions,
        discrete=(0,) * (actions - 1) + (2,),
    )
    observation_spec = ObservationSpec(
        cameras={}, proprio_names=tuple(f"p{i}" for i in range(proprio)), proprio_units=("rad",) * proprio, control_hz=hz
    )
    specs = {"action_spec": action_spec, "observation_spec": observation_spec}
    episodes = [make_episode(length, seed, **specs) for seed, length in enumerate(lengths)]
    assert_comes_back(tmp_path_factory.mktemp("numbers"), episodes, **specs, assert_same_episode=assert_same_episode)


@settings(max_examples=4, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    cameras=st.dictionaries(
        st.sampled_from(["wrist", "front.left", "über kopf"]),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        min_size=1,
        max_size=2,
    ),
)
def test_a_round_trip_keeps_every_pixel(
    tmp_path_factory, make_episode, assert_same_episode, action_spec, observation_spec, lengths, cameras
):
    observation_spec = replace(observation_spec, cameras={name: (h, w, 3) for name, (h, w) in cameras.items()})
    episodes = [make_episode(length, seed, observation_spec=observation_spec) for seed, length in enumerate(lengths)]
    assert_comes_back(tmp_path_factory.mktemp("pixels"), episodes, action_spec, observation_spec, assert_same_episode)


@settings(max_examples=8, deadline=None)
@given(
    end=st.sampled_from(["terminated", "truncated", "both"]),
    success=st.booleans(),
    has_final=st.booleans(),
    has_times=st.booleans(),
    instruction=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_round_trip_keeps_every_label(
    tmp_path_factory,
    make_episode,
    assert_same_episode,
    action_spec,
    observation_spec,
    end,
    success,
    has_final,
    has_times,
    instruction,
):
    labels = {"end": end, "success": success, "has_final_observation": has_final, "instruction": instruction.replace("\0", "")}
    episodes = [
        make_episode(
            length,
            timestamps=np.linspace(1e9, 1e9 + length, length + 1) if has_times else None,
            info={"seed": length, "noise": {"x": [0.1, None, "é"]}},
            **labels,
        )
        for length in (1, 7)
    ]
    for episode in episodes if not has_final else ():
        repeat_last(episode)
    assert_comes_back(tmp_path_factory.mktemp("labels"), episodes, action_spec, observation_spec, assert_same_episode)


def smooth_episode(make_episode, length, seed, **changes):
    """With images that a camera might see: gradients, of which one brightens by 20 per step."""
    images = {}
    for camera, shape in VIDEO_SPEC.cameras.items():
        y, x, _ = np.indices(shape)
        channel = np.arange(3)
        rows = [np.select([channel == 0, channel == 1], [2 * y, x + 20 * t], x + y) for t in range(length + 1)]
        images[camera] = np.stack(rows).clip(0, 255).astype(np.uint8)
    return make_episode(length, seed, observation_spec=VIDEO_SPEC, images=images, **changes)


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_video_keeps_all_but_the_last_shade_and_every_frame_in_its_place(
    tmp_path, make_episode, action_spec, assert_same_episode, codec
):
    episodes = [smooth_episode(make_episode, length, length, end="truncated") for length in (3, 7, 1)]
    with LeRobotWriter(tmp_path / "set", action_spec, VIDEO_SPEC, {}, images=codec) as writer:
        for episode in episodes:
            writer.append(episode)
    videos = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set/videos").rglob("*.mp4"))
    assert videos == [f"videos/observation.images.{c}/chunk-000/file-000.mp4" for c in ("front", "wrist")]
    with av.open(str(tmp_path / "set" / videos[0])) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(times, np.arange(11) / 7.5)
    for found, expected in zip(LeRobotEpisodes(tmp_path / "set"), episodes, strict=True):
        for camera, images in expected.images.items():
            error = found.images[camera].astype(float) - images
            assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # [dB]; the neighbouring frame would give 27
            assert np.array_equal(found.images[camera][-1], images[-1])  # kept beside, without loss
        expected.images = found.images
        assert_same_episode(found, expected)


def test_lerobot_finds_all_it_looks_for(tmp_path, make_episode, action_spec, observation_spec):
    """Columns, types and metadata as LeRobot 0.4 reads them."""
    episodes = [
        make_episode(3, 0, instruction="b"),
        make_episode(2, 1, end="truncated", instruction="a"),
        make_episode(4, 2, instruction="b"),
    ]
    with LeRobotWriter(tmp_path / "set", action_spec, observation_spec, {"robot_type": "arm"}) as writer:
        for episode in episodes:
            writer.append(episode)
    root = tmp_path / "set"
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 10, "arm")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 9, 2)
    assert info["splits"] == {"train": "0:3"}
    assert info["video_path"] is None
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["dx", "gripper"]}
    assert info["features"]["observation.images.wrist"] == {
        "dtype": "image",
        "shape": [6, 8, 3],
        "names": ["height", "width", "channels"],
    }
    data = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert pq.ParquetFile(root / "data/chunk-000/file-000.parquet").num_row_groups == 3
    assert set(data.column_names) == set(info["features"])
    assert data.schema.field("action").type == pa.list_(pa.float32(), 2)
    assert data.schema.field("timestamp").type == pa.float32()
    assert data["index"].to_pylist() == list(range(9))
    assert data["episode_index"].to_pylist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert data["task_index"].to_pylist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert np.allclose(data["timestamp"].to_numpy(), [0, 0.1, 0.2, 0, 0.1, 0, 0.1, 0.2, 0.3])
    assert data["next.done"].to_pylist() == [False, False, True, False, True, False, False, False, True]
    assert data["next.truncated"].to_pylist() == [False] * 4 + [True] + [False] * 4
    assert data["next.success"].to_pylist() == [False, False, True, False, False, False, False, False, True]
    actions = np.array(data["action"].to_pylist())
    assert np.allclose(actions[:3], action_spec.to_units(episodes[0].actions))
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["b", "a"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert rows["tasks"] == [["b"], ["a"], ["b"]]
    assert rows["length"] == [3, 2, 4]
    assert (rows["dataset_from_index"], rows["dataset_to_index"]) == ([0, 3, 5], [3, 5, 9])
    assert rows["data/chunk_index"] == rows["data/file_index"] == rows["meta/episodes/file_index"] == [0, 0, 0]
    assert rows["stats/action/count"] == [[3], [2], [4]]
    assert np.allclose(rows["stats/action/max"][1], actions[3:5].max(0))


def test_statistics_are_those_of_all_frames(tmp_path, make_episode, action_spec, observation_spec):
    episodes = [make_episode(length, length) for length in (3, 9)]
    with LeRobotWriter(tmp_path / "set", action_spec, observation_spec) as writer:
        for episode in episodes:
            writer.append(episode)
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    state = np.concatenate([e.proprio[:-1] for e in episodes]).astype(np.float64)
    images = np.concatenate([e.images["wrist"][:-1] for e in episodes]) / 255.0
    for name, values, shape in [("observation.state", state, (3,)), ("observation.images.wrist", images.reshape(-1, 3), (3, 1, 1))]:
        for key, expected in [
            ("min", values.min(0)),
            ("max", values.max(0)),
            ("mean", values.mean(0)),
            ("std", values.std(0)),
            ("q01", np.quantile(values, 0.01, axis=0)),
            ("q50", np.quantile(values, 0.5, axis=0)),
        ]:
            found = np.array(stats[name][key])
            assert found.shape == shape, (name, key)
            assert np.allclose(found.ravel(), expected, atol=1 / 255), (name, key)
        assert stats[name]["count"] == [12]


def test_files_are_begun_anew_where_they_would_grow_too_large(tmp_path, make_episode, action_spec, monkeypatch):
    monkeypatch.setattr("qtransformer_datasets.lerobot.merge.DATA_MEGABYTES", 0)
    monkeypatch.setattr("qtransformer_datasets.lerobot.merge.VIDEO_MEGABYTES", 0)
    monkeypatch.setattr("qtransformer_datasets.lerobot.merge.CHUNK_FILES", 2)
    episodes = [smooth_episode(make_episode, 3, seed) for seed in range(3)]
    with LeRobotWriter(tmp_path / "set", action_spec, VIDEO_SPEC, images="h264") as writer:
        for episode in episodes:
            writer.append(episode)
    found = sorted(path.relative_to(tmp_path / "set/data").as_posix() for path in (tmp_path / "set/data").rglob("*.parquet"))
    assert found == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    assert len(list((tmp_path / "set/videos/observation.images.wrist").rglob("*.mp4"))) == 3
    for episode, expected in zip(LeRobotEpisodes(tmp_path / "set"), episodes, strict=True):
        assert np.array_equal(episode.actions, expected.actions)
        assert np.abs(episode.images["wrist"].astype(int) - expected.images["wrist"]).mean() < 4


def test_a_subset_of_cameras_and_episodes_reads_the_same(tmp_path, make_episode, action_spec):
    with LeRobotWriter(tmp_path / "set", action_spec, VIDEO_SPEC) as writer:
        for seed in range(3):
            writer.append(smooth_episode(make_episode, 3, seed))
    source = LeRobotEpisodes(tmp_path / "set", cameras=["front"], episodes=[2])
    assert source.observation_spec == ObservationSpec({"front": (96, 64, 3)}, ("x", "y"), ("m", "m"), 7.5)
    (episode,) = source
    assert list(episode.images) == ["front"]
    assert episode.info == {"seed": 2}


# --- what is beside


@pytest.fixture
def written(tmp_path, make_episode, action_spec, observation_spec):
    with LeRobotWriter(tmp_path / "set", action_spec, observation_spec) as writer:
        for seed in range(2):
            writer.append(make_episode(3, seed))
    return tmp_path / "set"


def test_without_the_folder_beside_it_is_an_ordinary_dataset(written, make_episode, action_spec):
    for file in (written / "qtransformer").iterdir():
        file.unlink()
    source = LeRobotEpisodes(written)
    expected = make_episode(3, 1)
    episode = source.read(1)
    assert np.allclose(source.action_spec.to_units(episode.actions), action_spec.to_units(expected.actions), atol=1e-6)
    assert np.array_equal(episode.images["wrist"][:-1], expected.images["wrist"][:-1])
    assert episode.rewards.tolist() == [0, 0, 1]
    assert (episode.success, episode.terminated[-1], episode.has_final_observation) == (True, True, False)


def test_a_dataset_that_others_changed_is_not_read_as_ours(written, edit_table):
    data = written / "data/chunk-000/file-000.parquet"
    edit_table(data, lambda columns: columns["action"].__setitem__(4, [0.01, 0.5]))
    source = LeRobotEpisodes(written)
    source.read(0)
    with pytest.raises(DatasetError, match=r"episode 1.*actions are not those of the dataset.*delete the folder qtransformer"):
        source.read(1)
    edit_table(data, lambda columns: columns.update(episode_index=[e + 5 * (e == 1) for e in columns["episode_index"]]))
    with pytest.raises(DatasetError, match="episode 6: added by another tool"):
        LeRobotEpisodes(written).read(1)


def test_missing_or_damaged_extras_are_named(written):
    specs = written / "qtransformer/specs.json"
    text = specs.read_text()
    specs.write_text(text.replace("action_spec", "spec"))
    with pytest.raises(DatasetError, match=r"specs.json: its specs cannot be read"):
        LeRobotEpisodes(written)
    specs.write_text(text)
    (written / "qtransformer/episodes.parquet").unlink()
    with pytest.raises(DatasetError, match=r"episodes.parquet: expected a parquet file, found nothing"):
        LeRobotEpisodes(written)


# --- the writer's promises


def test_nothing_stands_at_the_path_before_finish(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "set"
    writer = LeRobotWriter(path, action_spec, observation_spec)
    with pytest.raises(DatasetError, match="at least one episode"):
        writer.finish()
    writer.append(make_episode())
    assert not path.exists()
    with pytest.raises(DatasetError, match=r"not finished.*resume"):
        LeRobotEpisodes(path)
    with pytest.raises(DatasetError, match="another process is writing"):
        LeRobotWriter.open_or_resume(path, action_spec, observation_spec)
    writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    with pytest.raises(DatasetError, match="open another dataset"):
        writer.append(make_episode())
    with pytest.raises(DatasetError, match="expected a free path"):
        LeRobotWriter(path, action_spec, observation_spec)


def test_resuming_needs_the_same_settings(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "set"

    def interrupted():
        with LeRobotWriter(path, action_spec, observation_spec, {"seed": 1}) as writer:
            writer.append(make_episode())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    with pytest.raises(DatasetError, match=r"LeRobotWriter\.open_or_resume"):
        LeRobotWriter(path, action_spec, observation_spec, {"seed": 1})
    with pytest.raises(SpecMismatchError, match=r"attributes.seed differs .* expected 1, found 2"):
        LeRobotWriter.open_or_resume(path, action_spec, observation_spec, {"seed": 2})
    with pytest.raises(SpecMismatchError, match=r"images differs .* expected png, found av1"):
        LeRobotWriter.open_or_resume(path, action_spec, observation_spec, {"seed": 1}, images="av1")
    assert len(LeRobotWriter.open_or_resume(path, action_spec, observation_spec, {"seed": 1})) == 1


def test_what_lerobot_or_a_codec_cannot_hold_is_refused(tmp_path, action_spec, observation_spec, make_episode):
    with pytest.raises(ConfigError, match=r"out\.images expected png, av1 or h264, found gif"):
        LeRobotWriter(tmp_path / "a", action_spec, observation_spec, images="gif")  # pyright: ignore[reportArgumentType]
    slashed = ObservationSpec({"a/b": (6, 8, 3)}, (), (), 10.0)
    with pytest.raises(DatasetError, match="camera named 'a/b'"):
        LeRobotWriter(tmp_path / "b", action_spec, slashed)
    odd = ObservationSpec({"wrist": (65, 96, 3)}, ("x",), ("m",), 10.0)
    with pytest.raises(DatasetError, match=r"episode 0, camera 'wrist': video needs even sizes, found 65 x 96; use images='png'"):
        LeRobotWriter(tmp_path / "c", action_spec, odd, images="h264").append(make_episode(2, observation_spec=odd))


ENDLESS_WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from tests.episodes import ACTION_SPEC, OBSERVATION_SPEC, make_episode
from qtransformer_datasets.lerobot.writer import LeRobotWriter
writer = LeRobotWriter.open_or_resume(sys.argv[1], ACTION_SPEC, OBSERVATION_SPEC, {"seed": 3})
for seed in itertools.count(len(writer)):
    writer.append(make_episode(1 + seed % 5, seed))
    print(seed, flush=True)
"""


def test_kill_9_loses_at_most_the_episode_being_written(tmp_path, action_spec, observation_spec, make_episode, assert_same_episode):
    path, finished = tmp_path / "set", -1
    rng = np.random.default_rng(0)
    for _ in range(2):
        command = [sys.executable, "-c", ENDLESS_WRITER, str(path), str(Path(__file__).parents[3])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
            assert process.stdout is not None
            while finished < 0 or rng.random() > 0.2:
                finished = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            finished = max([finished, *map(int, process.stdout.read().split())])
    writer = LeRobotWriter.open_or_resume(path, action_spec, observation_spec, {"seed": 3})
    assert len(writer) in (finished + 1, finished + 2)
    length = len(writer)
    writer.append(make_episode(4, length))
    writer.finish()
    source = LeRobotEpisodes(path)
    assert len(source) == length + 1
    for seed, episode in enumerate(source):
        expected = make_episode(4 if seed == length else 1 + seed % 5, seed)
        assert_same_episode(episode, expected)

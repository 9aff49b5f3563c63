"""What is written comes back, and a killed writer loses nothing that it had finished."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import DatasetError, SpecMismatchError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets import HDF5Episodes, HDF5Writer


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    cameras=st.dictionaries(
        st.sampled_from(["wrist", "front", "über kopf"]), st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=2
    ),
    proprio=st.integers(0, 4),
    actions=st.integers(1, 5),
    end=st.sampled_from(["terminated", "truncated", "both"]),
    has_final=st.booleans(),
    instruction=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
def test_round_trip_is_bit_equal(
    tmp_path_factory, make_episode, assert_same_episode, lengths, cameras, proprio, actions, end, has_final, instruction
):
    action_spec = ActionSpec(
        names=tuple(f"a{i}" for i in range(actions)),
        low=(-0.1,) * actions,
        high=(0.3,) * actions,
        units=("m",) * actions,
        discrete=(0,) * actions,
    )
    observation_spec = ObservationSpec(
        cameras={name: (h, w, 3) for name, (h, w) in cameras.items()},
        proprio_names=tuple(f"p{i}" for i in range(proprio)),
        proprio_units=("rad",) * proprio,
        control_hz=7.5,
    )
    episodes = [
        make_episode(
            length,
            seed,
            end=end,
            action_spec=action_spec,
            observation_spec=observation_spec,
            instruction=instruction,
            has_final_observation=has_final,
        )
        for seed, length in enumerate(lengths)
    ]
    if not has_final:  # the convention for a lost final observation: the last row is repeated
        for episode in episodes:
            for rows in [episode.proprio, *episode.images.values()]:
                rows[-1] = rows[-2]
    path = tmp_path_factory.mktemp("round_trip") / "demo.hdf5"
    with HDF5Writer(path, action_spec, observation_spec, {"recipe": "test", "versions": {"sim": "1.0"}}) as writer:
        for episode in episodes:
            writer.append(episode)
        assert len(writer) == len(episodes)
    source = HDF5Episodes(path)
    assert source.action_spec == action_spec
    assert source.observation_spec == observation_spec
    assert source.attributes == {"recipe": "test", "versions": {"sim": "1.0"}}
    assert source.lengths == lengths
    assert len(source) == len(episodes)
    for found, expected in zip(source, episodes, strict=True):
        assert_same_episode(found, expected)
    assert_same_episode(source.read(len(episodes) - 1), episodes[-1])


def test_layout_is_robomimics(write_file, make_episode):
    path = write_file([make_episode(3, seed, end="truncated") for seed in range(11)], seed=7, env_name="grasp")
    with h5py.File(path, "r", swmr=True, libver="latest") as file:  # as robomimic opens it
        data = file["data"]
        assert data.attrs["total"] == 33
        env_args = json.loads(data.attrs["env_args"])
        assert env_args == {"env_name": "grasp", "type": 100, "env_kwargs": {"control_freq": 10.0}}
        demo = data["demo_10"]
        assert demo.attrs["num_samples"] == 3
        assert demo.attrs["seed"] == 10
        assert demo["dones"][()].tolist() == [0, 0, 1]
        assert demo["obs/wrist_image"].shape == (3, 6, 8, 3)
        assert demo["next_obs/wrist_image"].shape == (1, 6, 8, 3)
        assert demo["next_obs"].attrs["rows"] == "last"
        assert demo["obs/wrist_image"].fletcher32
        masks = {name: [x.decode() for x in file["mask"][name]] for name in ("train", "valid")}
    assert masks["valid"] == ["demo_9"]
    assert sorted(masks["train"] + masks["valid"]) == sorted(f"demo_{i}" for i in range(11))


def test_demos_are_read_in_numerical_order(write_file, make_episode):
    path = write_file([make_episode(1, seed) for seed in range(12)])
    assert [episode.info["seed"] for episode in HDF5Episodes(path)] == list(range(12))


def test_nothing_stands_at_the_path_before_finish(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "demo.hdf5"
    writer = HDF5Writer(path, action_spec, observation_spec, {})
    writer.append(make_episode())
    assert not path.exists()
    with pytest.raises(DatasetError, match=r"not finished.*resume"):
        HDF5Episodes(path)
    writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["demo.hdf5"]
    with pytest.raises(DatasetError, match="open another dataset"):
        writer.append(make_episode())


def test_an_exception_keeps_the_parts_and_publishes_nothing(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "demo.hdf5"

    def interrupted():
        with HDF5Writer(path, action_spec, observation_spec, {}) as writer:
            writer.append(make_episode())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    with pytest.raises(DatasetError, match="open_or_resume"):
        HDF5Writer(path, action_spec, observation_spec, {})
    assert len(HDF5Writer.open_or_resume(path, action_spec, observation_spec, {})) == 1


ENDLESS_WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from tests.episodes import ACTION_SPEC, OBSERVATION_SPEC, make_episode
from qtransformer_datasets import HDF5Writer
writer = HDF5Writer.open_or_resume(sys.argv[1], ACTION_SPEC, OBSERVATION_SPEC, {"seed": 3})
for seed in itertools.count(len(writer)):
    writer.append(make_episode(1 + seed % 5, seed))
    print(seed, flush=True)
"""


def test_kill_9_loses_at_most_the_demo_being_written(tmp_path, action_spec, observation_spec, make_episode, assert_same_episode):
    path = tmp_path / "demo.hdf5"
    finished = -1
    for delay in (0.0, 0.0137, 0.0291):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS_WRITER, str(path), str(Path(__file__).parents[3])],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert int(process.stdout.readline()) == finished + 1
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        finished = int(rest[-1]) if rest else finished + 1
        with_lucky_one = len(list((tmp_path / "demo.hdf5.partial").glob("demo_*.hdf5")))
        assert with_lucky_one in (finished + 1, finished + 2)  # published, but killed before it said so
        finished = with_lucky_one - 1
    (tmp_path / "demo.hdf5.partial" / "demo_999.tmp").write_bytes(b"\x89HDF half a demo")
    (tmp_path / "demo.hdf5.partial" / "merged.tmp").write_bytes(b"\x89HDF half a merge")
    with HDF5Writer.open_or_resume(path, action_spec, observation_spec, {"seed": 3}) as writer:
        assert len(writer) == finished + 1
        writer.append(make_episode(1 + len(writer) % 5, len(writer)))
    episodes = list(HDF5Episodes(path))
    assert len(episodes) == finished + 2
    for seed, episode in enumerate(episodes):
        assert_same_episode(episode, make_episode(1 + seed % 5, seed))
    assert [p.name for p in tmp_path.iterdir()] == ["demo.hdf5"]


def test_resume_refuses_another_recipe_or_spec(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "demo.hdf5"
    writer = HDF5Writer(path, action_spec, observation_spec, {"recipe": {"noise": 0.1}, "seed": 1})
    writer.append(make_episode())
    writer.close()
    with pytest.raises(SpecMismatchError, match=r"attributes\.recipe\.noise .*expected 0\.1, found 0\.2"):
        HDF5Writer.open_or_resume(path, action_spec, observation_spec, {"recipe": {"noise": 0.2}, "seed": 1})
    with pytest.raises(SpecMismatchError, match=r"attributes\.extra"):
        HDF5Writer.open_or_resume(path, action_spec, observation_spec, {"recipe": {"noise": 0.1}, "seed": 1, "extra": 0})
    other = dataclasses.replace(observation_spec, control_hz=20.0)
    with pytest.raises(SpecMismatchError, match=r"observation_spec\.control_hz"):
        HDF5Writer.open_or_resume(path, action_spec, other, {"recipe": {"noise": 0.1}, "seed": 1})


def test_one_writer_at_a_time_and_no_overwriting(tmp_path, action_spec, observation_spec, make_episode):
    path = tmp_path / "demo.hdf5"
    writer = HDF5Writer(path, action_spec, observation_spec, {})
    with pytest.raises(DatasetError, match="another process"):
        HDF5Writer.open_or_resume(path, action_spec, observation_spec, {})
    writer.append(make_episode())
    writer.finish()
    for start in (HDF5Writer, HDF5Writer.open_or_resume):
        with pytest.raises(DatasetError, match="finished file"):
            start(path, action_spec, observation_spec, {})


def test_a_gap_in_the_parts_is_an_error(tmp_path, action_spec, observation_spec, make_episode):
    writer = HDF5Writer(tmp_path / "demo.hdf5", action_spec, observation_spec, {})
    for seed in range(3):
        writer.append(make_episode(seed=seed))
    writer.close()
    (tmp_path / "demo.hdf5.partial" / "demo_1.hdf5").unlink()
    with pytest.raises(DatasetError, match=r"demo_1\.hdf5 is missing"):
        HDF5Writer.open_or_resume(tmp_path / "demo.hdf5", action_spec, observation_spec, {})


def test_what_cannot_be_written_is_said(tmp_path, action_spec, observation_spec, make_episode):
    with pytest.raises(DatasetError, match="JSON"):
        HDF5Writer(tmp_path / "a.hdf5", action_spec, observation_spec, {"policy": object()})
    writer = HDF5Writer(tmp_path / "b.hdf5", action_spec, observation_spec, {"seed": np.int64(3)})
    with pytest.raises(DatasetError, match="at least one episode"):
        writer.finish()
    with pytest.raises(DatasetError, match="episode 0"):
        writer.append(make_episode(instruction="nul \0 inside"))
    with pytest.raises(DatasetError, match=r"b\.hdf5, episode 0: actions"):
        writer.append(make_episode(actions=np.full((4, 2), 2.0, np.float32)))
    writer.append(make_episode())
    writer.finish()
    assert len(HDF5Episodes(tmp_path / "b.hdf5")) == 1


def test_text_stays_off_the_heap(write_file, make_episode):
    """A damaged heap of variable-length strings hangs HDF5 itself, out of reach of any check."""
    with h5py.File(write_file([make_episode(instruction="")])) as file:
        for group in (file["data"], file["data/demo_0"]):
            for name in group.attrs:
                text = h5py.check_string_dtype(group.attrs.get_id(name).dtype)
                assert text is None or text.length is not None, name


def test_times_of_observations_come_back(tmp_path, action_spec, observation_spec, make_episode) -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.3, 6))
    with HDF5Writer(tmp_path / "a.hdf5", action_spec, observation_spec) as writer:
        writer.append(make_episode(5, timestamps=times))
        writer.append(make_episode(5))
        with pytest.raises(DatasetError, match="timestamps expected to increase"):
            writer.append(make_episode(5, timestamps=times[::-1].copy()))
    timed, untimed = HDF5Episodes(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(timed.timestamps, times)
    assert untimed.timestamps is None


def test_states_say_how_an_episode_is_replayed(write_file, make_episode) -> None:
    """Seed, step, the action that led here, proprioception; no states where there is no seed to begin from."""
    known, unknown = make_episode(3, 5), make_episode(2, info={})
    with h5py.File(write_file([known, unknown])) as file:
        states = file["data/demo_0/states"][()]
        assert "states" not in file["data/demo_1"]
    assert states.dtype == np.float64
    assert states[:, :2].tolist() == [[5, 0], [5, 1], [5, 2]]
    assert np.array_equal(states[:, 2:4], np.concatenate([np.zeros((1, 2)), known.actions[:2]]))
    assert np.array_equal(states[:, 4:], known.proprio[:3])


def test_env_args_of_a_foreign_file_are_handed_on(write_file, make_episode) -> None:
    env_args = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": "Panda"}}
    with h5py.File(write_file([make_episode(3)], env_args=env_args)) as file:
        assert json.loads(file["data"].attrs["env_args"]) == env_args

"""Files of others: what is read off their arrays, what is asked for, what is refused."""

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Episodes


def test_foreign_specs_are_inferred(tmp_path, write_foreign, foreign_demo):
    source = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [foreign_demo()]), dones="terminated")
    assert source.action_spec.names == ("a0", "a1")
    assert (source.action_spec.low, source.action_spec.high) == ((-1.0, -1.0), (1.0, 1.0))
    assert source.action_spec.units == ("1", "1")
    assert dict(source.observation_spec.cameras) == {"agentview": (6, 8, 3)}
    assert source.observation_spec.control_hz == 20.0
    names = source.observation_spec.proprio_names
    assert names == ("robot0_angle", "robot0_eef_pos[0]", "robot0_eef_pos[1]", "robot0_eef_pos[2]")
    assert source.attributes["env_args"]["env_name"] == "Lift"


def test_foreign_proprio_can_be_chosen(tmp_path, write_foreign, foreign_demo):
    demo = foreign_demo(3)
    path = write_foreign(tmp_path / "f.hdf5", [demo])
    episode = HDF5Episodes(path, dones="truncated", proprio=["robot0_eef_pos", "robot0_angle"]).read(0)
    expected = np.column_stack([demo["obs/robot0_eef_pos"], demo["obs/robot0_angle"]]).astype(np.float32)
    assert np.array_equal(episode.proprio[:-1], expected)
    assert np.array_equal(episode.proprio[-1, :3], demo["next_obs/robot0_eef_pos"][-1].astype(np.float32))
    with pytest.raises(ConfigError, match=r"\['gps'\]"):
        HDF5Episodes(path, dones="truncated", proprio=["gps"])


def test_actions_in_another_range_are_read_by_their_limits(tmp_path, write_foreign, foreign_demo):
    """Absolute poses, say. The refusal names the values as they are logged, and the option that holds them."""
    actions = np.array([[0.5, -3.12345], [0.25, 7.0]])
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2) | {"actions": actions}, foreign_demo(2, 1)])
    told = r"'a1' in 100\.0 % .* \(from -3\.123 to 7, limits \[-1, 1\]\); .*limits:{a1:\[-3\.124,7\]}, .*clip_actions:true"
    with pytest.raises(DatasetError, match=told):
        HDF5Episodes(path, dones="terminated").read(0)
    source = HDF5Episodes(path, dones="terminated", limits={"a1": [-3.124, 7]})
    assert (source.action_spec.low, source.action_spec.high) == ((-1.0, -3.124), (1.0, 7.0))
    assert np.allclose(source.action_spec.to_units(source.read(0).actions), actions, atol=1e-6)
    assert HDF5Episodes(path, dones="terminated", limits=[[-1, 1], [-3.124, 7]]).action_spec == source.action_spec
    with pytest.raises(DatasetError, match=r"'a1' in 50\.0 % of the steps \(from -3\.123 to 7, limits \[-5, 5\]\)"):
        HDF5Episodes(path, dones="terminated", limits={"a1": [-5, 5]}).read(0)


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        ({"a2": [0, 1]}, "'a2' does not exist"),
        ({"a1": [1, 0]}, r"limits of 'a1' expected finite numbers low < high, found \[1, 0\]"),
        ({"a1": 3}, r"limits of 'a1' expected two numbers \[low, high\], found 3"),
        ([[0, 1]], "limits expected one pair for each of 2 dimensions, found 1"),
        ("wide", "limits expected one pair for each of 2 dimensions, found 'wide'"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(tmp_path, write_foreign, foreign_demo, limits, answer):
    with pytest.raises(ConfigError, match=answer):
        HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [foreign_demo()]), dones="terminated", limits=limits)


def test_limits_that_our_files_say_are_not_said_again(write_file, make_episode):
    with pytest.raises(DatasetError, match=r"limits:.* is for datasets that do not say the finite limits of its actions"):
        HDF5Episodes(write_file([make_episode()]), limits={"dx": [-1, 1]})


def test_a_lost_final_observation_is_marked(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4, next_obs=False), foreign_demo(4, 1, next_obs=False, done_at=1)])
    lost, kept = HDF5Episodes(path, dones="terminated")
    assert not lost.has_final_observation
    assert np.array_equal(lost.images["agentview"][-1], lost.images["agentview"][-2])
    assert np.array_equal(lost.proprio[-1], lost.proprio[-2])
    assert kept.has_final_observation  # the log goes on after success, so the next row is there


def test_control_rate_is_asked_for(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()], {"env_name": "x", "env_kwargs": {}})
    with pytest.raises(DatasetError, match=r"say so: dataset={path:.*,control_hz:20}"):
        HDF5Episodes(path, dones="terminated")
    assert HDF5Episodes(path, dones="terminated", control_hz=5.0).observation_spec.control_hz == 5.0
    said = write_foreign(tmp_path / "said.hdf5", [foreign_demo()])
    assert HDF5Episodes(said, dones="terminated", control_hz=20).observation_spec.control_hz == 20.0
    with pytest.raises(DatasetError, match=r"control_hz:5\.0 is for datasets that do not say .* this one says 20; leave it out"):
        HDF5Episodes(said, dones="terminated", control_hz=5.0)


def test_all_that_is_unsaid_is_asked_for_at_once(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()], {"env_name": "x"})
    both = r"say so: dataset={path:.*,control_hz:20,dones:terminated}, or .* control_hz=20 dones=terminated"
    with pytest.raises(DatasetError, match=both):
        HDF5Episodes(path)
    with pytest.raises(ConfigError, match="control_hz expected a number above 0, found 'fast'"):
        HDF5Episodes(path, dones="terminated", control_hz="fast")  # pyright: ignore[reportArgumentType]


def test_what_our_files_say_is_not_said_again(write_file, make_episode):
    path = write_file([make_episode()])
    with pytest.raises(DatasetError, match=r"dones:terminated is for datasets that do not say .*leave it out"):
        HDF5Episodes(path, dones="terminated")
    with pytest.raises(DatasetError, match=r"control_hz:4 .* this one says 10"):
        HDF5Episodes(path, control_hz=4)
    assert HDF5Episodes(path, control_hz=10).observation_spec.control_hz == 10


def test_proprio_of_our_files_can_be_chosen(write_file, make_episode):
    path = write_file([make_episode(3)])
    whole, some, one = HDF5Episodes(path), HDF5Episodes(path, proprio=["z", "x"]), HDF5Episodes(path, proprio="y")
    assert some.observation_spec.proprio_names == ("z", "x")
    assert some.observation_spec.proprio_units == ("m", "m")
    assert np.array_equal(some.read(0).proprio, whole.read(0).proprio[:, [2, 0]])
    assert np.array_equal(one.read(0).proprio, whole.read(0).proprio[:, [1]])
    for chosen, found in (["joint_9"], "joint_9"), (["x", "x"], "twice"):
        with pytest.raises(ConfigError, match=f"proprio expected some of x, y, z, found .*{found}"):
            HDF5Episodes(path, proprio=chosen)
    with h5py.File(path, "r+") as file:
        rows = file["data/demo_0/obs/proprio"][:, :2]
        del file["data/demo_0/obs/proprio"]
        file["data/demo_0/obs/proprio"] = rows
        rows = file["data/demo_0/next_obs/proprio"][:, :2]
        del file["data/demo_0/next_obs/proprio"]
        file["data/demo_0/next_obs/proprio"] = rows
    with pytest.raises(DatasetError, match="proprio expected 3 values, found 2"):
        HDF5Episodes(path, proprio=["x"]).read(0)


BAD_ARRAYS = {
    "NaN action": ({"actions": np.array([[0, 0], [0, np.nan]])}, "actions.*NaN.*row 1"),
    "infinite action": ({"actions": np.array([[np.inf, 0], [0, 0]])}, "actions.*row 0"),
    "double beyond float32": ({"actions": np.array([[1e300, 0], [0, 0]])}, "actions.*infinity"),
    "action out of range": ({"actions": np.array([[0, 0.5], [0, -1.5]])}, r"'a1' in 50\.0 %"),
    "action just out of range": ({"actions": np.array([[0, 0.5], [0, 1.0001]])}, r"'a1' in 50\.0 %"),
    "NaN reward": ({"rewards": np.array([0, np.nan])}, "rewards.*NaN"),
    "NaN proprio": ({"obs/robot0_angle": np.array([np.nan, 0])}, "proprio.*NaN"),
    "short rewards": ({"rewards": np.zeros(1)}, "rewards"),
    "short dones": ({"dones": np.zeros(1, np.int64)}, "dones"),
    "long images": ({"obs/agentview_image": np.zeros((3, 6, 8, 3), np.uint8)}, "agentview_image.*2 rows"),
    "float images": ({"obs/agentview_image": np.zeros((2, 6, 8, 3))}, "uint8"),
    "channels first": (
        {f"{g}/agentview_image": np.zeros((2, 3, 6, 8), np.uint8) for g in ("obs", "next_obs")},
        "channels first",
    ),
    "other size": (
        {f"{g}/agentview_image": np.zeros((2, 6, 9, 3), np.uint8) for g in ("obs", "next_obs")},
        r"agentview.*\(3, 6, 8, 3\)",
    ),
    "next_obs of two rows too many": ({"next_obs/agentview_image": np.zeros((4, 6, 8, 3), np.uint8)}, "next_obs"),
    "no steps": ({"actions": np.zeros((0, 2))}, "at least one step"),
    "actions of three dimensions": ({"actions": np.zeros((2, 3))}, "actions"),
    "actions of strings": ({"actions": np.array([[b"a", b"b"]] * 2)}, "numbers"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_values_name_file_and_episode(tmp_path, write_foreign, foreign_demo, case):
    changes, message = BAD_ARRAYS[case]
    demos = [foreign_demo(2, 0), foreign_demo(2, 1) | changes]
    source = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", demos), dones="terminated")
    source.read(0)
    with pytest.raises(DatasetError, match=message) as caught:
        source.read(1)
    assert "f.hdf5, demo_1" in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 6, 8, 4), (2, 6, 8, 1)])
def test_a_first_demo_with_other_channels_is_refused(tmp_path, write_foreign, foreign_demo, shape):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2) | {"obs/agentview_image": np.zeros(shape, np.uint8)}])
    with pytest.raises(DatasetError, match=r"\(h, w, 3\)"):
        HDF5Episodes(path, dones="terminated")


def test_a_demonstration_without_rewards_has_none(tmp_path, write_foreign, foreign_demo):
    demo = foreign_demo(3)
    del demo["rewards"]
    episode = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [demo]), dones="terminated").read(0)
    assert episode.rewards.tolist() == [0, 0, 0]
    assert episode.success


def test_missing_parts_are_named(tmp_path, write_foreign, foreign_demo):
    demo = foreign_demo()
    del demo["obs/robot0_angle"]
    with pytest.raises(DatasetError, match="'robot0_angle'"):
        HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [foreign_demo(), demo]), dones="terminated").read(1)
    with pytest.raises(DatasetError, match="/data/demo_<i>"):
        HDF5Episodes(write_foreign(tmp_path / "g.hdf5", []))
    with h5py.File(tmp_path / "h.hdf5", "w") as file:
        file["observations"] = np.zeros(3)
    with pytest.raises(DatasetError, match=r"'data'.*found \['observations'\]"):
        HDF5Episodes(tmp_path / "h.hdf5")

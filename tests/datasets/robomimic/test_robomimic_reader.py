"""Files of others, damaged files, hostile files."""

import contextlib
import struct

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError, QTransformerError
from qtransformer_datasets import EpisodeDataset, HDF5Episodes


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


def test_the_meaning_of_dones_is_never_guessed(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with pytest.raises(DatasetError, match=r"whether `dones` means .*: dataset={path:.*,dones:terminated}, or .* dones=terminated"):
        HDF5Episodes(path)
    with pytest.raises(ConfigError, match="'done'"):
        HDF5Episodes(path, dones="done")  # pyright: ignore[reportArgumentType]


def test_dones_as_termination(tmp_path, write_foreign, foreign_demo):
    at_end, inside, never = foreign_demo(4, 0), foreign_demo(5, 1, done_at=2), foreign_demo(3, 2, done_at=None)
    source = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [at_end, inside, never]), dones="terminated")
    assert source.lengths == [4, 3, 3]
    first, cut, last = source
    assert (first.terminated[-1], first.truncated[-1], first.success) == (True, False, True)
    assert np.array_equal(first.images["agentview"][-1], at_end["next_obs/agentview_image"][-1])
    assert (len(cut), cut.terminated[-1], cut.success) == (3, True, True)
    assert np.array_equal(cut.images["agentview"], inside["obs/agentview_image"][:4])  # row 3 follows the last action
    assert np.array_equal(cut.actions, inside["actions"][:3].astype(np.float32))
    assert (last.terminated[-1], last.truncated[-1], last.success) == (False, True, False)


def test_dones_as_time_limit(tmp_path, write_foreign, foreign_demo):
    demo = foreign_demo(4) | {"rewards": np.array([0.0, 1.0, 0.0, 0.0])}
    episode = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [demo]), dones="truncated").read(0)
    assert (episode.terminated.any(), episode.truncated.tolist()) == (False, [False, False, False, True])
    assert episode.success
    source = HDF5Episodes(write_foreign(tmp_path / "g.hdf5", [foreign_demo(5, done_at=2)]), dones="truncated")
    with pytest.raises(DatasetError, match=r"demo_0.*step 2 of 5"):
        source.read(0)


def test_dones_at_the_end_of_every_log_are_no_success(tmp_path, write_foreign, foreign_demo):
    """robomimic's done mode 2 sets them on success and at the end: an episode that ran out is told apart by its rewards."""
    won, ran_out = foreign_demo(4), foreign_demo(4, 1) | {"rewards": np.zeros(4)}
    won, ran_out = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [won, ran_out]), dones="terminated")
    assert (won.success, won.terminated[-1], won.truncated[-1]) == (True, True, False)
    assert (ran_out.success, ran_out.terminated[-1], ran_out.truncated[-1]) == (False, False, True)


@pytest.mark.parametrize("dones", ["terminated", "truncated"])
def test_success_is_not_guessed_from_dense_rewards(tmp_path, write_foreign, foreign_demo, dones):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4, seed) | {"rewards": np.full(4, 0.01)} for seed in range(3)])
    with pytest.raises(DatasetError, match=r"f\.hdf5, demo_0: rewards other than 0 and 1 .*say so: success:all"):
        HDF5Episodes(path, dones=dones).read(0)
    for said, expected in {"all": [1, 1, 1], "none": [0, 0, 0]}.items():
        assert [episode.success for episode in HDF5Episodes(path, dones=dones, success=said)] == expected
    chosen = list(HDF5Episodes(path, dones=dones, success=[0, 2]))
    assert [episode.success for episode in chosen] == [True, False, True]
    assert [bool(episode.terminated[-1]) for episode in chosen] == [dones == "terminated" and i != 1 for i in range(3)]
    assert all(episode.terminated[-1] != episode.truncated[-1] for episode in chosen)


def test_success_names_demos_by_their_number(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4), foreign_demo(4, 1)])
    with h5py.File(path, "r+") as file:
        file["mask/some"] = np.array(["demo_1"], "S")
    assert HDF5Episodes(path, dones="terminated", filter_key="some", success=[1]).read(0).success
    with pytest.raises(DatasetError, match=r"success names episodes \[0\]"):
        HDF5Episodes(path, dones="terminated", filter_key="some", success=[0])


def test_a_demo_without_dones_ends_at_its_last_step(tmp_path, write_foreign, foreign_demo):
    demos = [foreign_demo(4), foreign_demo(5, 1) | {"rewards": np.zeros(5)}]
    for demo in demos:
        del demo["dones"]
    path = write_foreign(tmp_path / "f.hdf5", demos)
    with pytest.raises(DatasetError, match=r"there are no `dones`, so every episode ends at its last step.*dones:terminated"):
        HDF5Episodes(path)
    for dones in ("terminated", "truncated"):
        source = HDF5Episodes(path, dones=dones)
        assert source.lengths == [4, 5]
        won, lost = source
        assert (won.success, won.terminated[-1]) == (True, dones == "terminated")
        assert (lost.success, lost.terminated[-1], lost.truncated[-1]) == (False, False, True)
        for demo in demos:
            demo.pop("rewards", None)
        bare = write_foreign(tmp_path / f"{dones}.hdf5", demos)
        assert not any(episode.success for episode in HDF5Episodes(bare, dones=dones)), "nothing says that they succeeded"
        assert [episode.success for episode in HDF5Episodes(bare, dones=dones, success=[1])] == [False, True]


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


def test_success_is_refused_where_the_file_says_it(write_file, make_episode):
    path = write_file([make_episode()])
    with pytest.raises(DatasetError, match=r"success:all is for datasets that do not say .*data relabel"):
        HDF5Episodes(path, success="all")


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git lfs pull"),
        (b"PK\x03\x04 a zip archive", "something else"),
        (None, "nothing"),
    ],
)
def test_not_an_hdf5_file(tmp_path, content, message):
    path = tmp_path / "x.hdf5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"x.hdf5: .*{message}"):
        HDF5Episodes(path)
    with pytest.raises(DatasetError, match="folder"):
        HDF5Episodes(tmp_path)


def test_a_truncated_file_says_so(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(3)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"truncated.*again"):
        HDF5Episodes(path)


def test_a_flipped_bit_in_an_image_is_found(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(2)])
    with h5py.File(path) as file:
        offset = file["data/demo_1/obs/wrist_image"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 40] ^= 1
    path.write_bytes(raw)
    source = HDF5Episodes(path)
    source.read(0)
    with pytest.raises(DatasetError, match="demo_1: damaged"):
        source.read(1)


def test_random_damage_raises_only_our_errors(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(2)])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), 3):
            raw[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with contextlib.suppress(QTransformerError):
            EpisodeDataset(path)


SENTINEL = 77


@pytest.fixture
def secret(tmp_path):
    """A file that must not be read through another."""
    path = tmp_path / "secret.hdf5"
    with h5py.File(path, "w") as file:
        file["images"] = np.full((4, 6, 8, 3), SENTINEL, np.uint8)
        file["data/demo_0/obs/agentview_image"] = np.full((4, 6, 8, 3), SENTINEL, np.uint8)
    (tmp_path / "secret.raw").write_bytes(bytes([SENTINEL]) * (4 * 6 * 8 * 3))
    return path


def _external_link(obs, secret):
    obs["agentview_image"] = h5py.ExternalLink(str(secret), "/images")


def _soft_link_through_external(obs, secret):
    obs.file["door"] = h5py.ExternalLink(str(secret), "/")
    obs["agentview_image"] = h5py.SoftLink("/door/images")


def _external_storage(obs, secret):
    raw = str(secret.with_suffix(".raw"))
    obs.create_dataset("agentview_image", (4, 6, 8, 3), np.uint8, external=[(raw, 0, 4 * 6 * 8 * 3)])


def _virtual(obs, secret):
    layout = h5py.VirtualLayout((4, 6, 8, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "images", (4, 6, 8, 3))
    obs.create_virtual_dataset("agentview_image", layout)


@pytest.mark.parametrize("trick", [_external_link, _soft_link_through_external, _external_storage, _virtual])
def test_other_files_are_not_read(tmp_path, write_foreign, foreign_demo, secret, trick):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4, 0), foreign_demo(4, 1)])
    with h5py.File(path, "r+") as file:
        for name in ("demo_0", "demo_1"):
            del file[f"data/{name}/obs/agentview_image"]
        trick(file["data/demo_0/obs"], secret)
        assert (file["data/demo_0/obs/agentview_image"][()] == SENTINEL).all()  # the trick works on a careless reader
    with pytest.raises(DatasetError, match=r"agentview_image.*(Link|another file)"):
        HDF5Episodes(path, dones="terminated")


@pytest.mark.parametrize("place", ["data", "data/demo_0", "data/demo_0/obs"])
def test_links_in_the_middle_of_a_path_are_not_followed(tmp_path, write_foreign, foreign_demo, secret, place):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink(str(secret), "/" + place)
    with pytest.raises(DatasetError, match="ExternalLink"):
        HDF5Episodes(path, dones="terminated").read(0)


@pytest.mark.parametrize("chunks", [None, (1, 6, 8, 3), (2**18, 64, 64, 3)])
def test_shape_bombs_are_refused_before_allocation(tmp_path, write_foreign, foreign_demo, chunks):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["agentview_image"]
        shape = (2**40, 6, 8, 3) if chunks is None or chunks[0] == 1 else (2**20, 64, 64, 3)
        obs.create_dataset("agentview_image", shape, np.uint8, chunks=chunks)
    with pytest.raises(DatasetError, match=r"declares .* bytes"):
        HDF5Episodes(path, dones="terminated")


def test_a_chunk_far_larger_than_its_array_is_refused(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["agentview_image"]
        sizes = {"shape": (4, 6, 8, 3), "maxshape": (None, 6, 8, 3), "chunks": (2**21, 6, 8, 3)}
        obs.create_dataset("agentview_image", dtype=np.uint8, **sizes)
    with pytest.raises(DatasetError, match="in chunks of 301989888"):
        HDF5Episodes(path, dones="terminated")


def test_a_forged_storage_size_is_refused(tmp_path, write_foreign, foreign_demo):
    """Shape and stored size agree with each other, but not with the file; recent HDF5 finds that out before we do."""
    path, rows = write_foreign(tmp_path / "f.hdf5", [foreign_demo(5)]), 2**40
    raw = path.read_bytes()
    for numbers, forged in [((5, 6, 8, 3), (rows, 6, 8, 3)), ((5 * 144,), (rows * 144,))]:
        old, new = (struct.pack(f"<{len(n)}Q", *n) for n in (numbers, forged))
        assert old in raw
        raw = raw.replace(old, new)
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=r"declares|damaged"):
        HDF5Episodes(path, dones="terminated")


def test_a_false_length_is_refused_before_allocation(write_file, make_episode):
    path = write_file([make_episode()])
    with h5py.File(path, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = 2**50
    with pytest.raises(DatasetError, match="more than a file of"):
        EpisodeDataset(path)
    with h5py.File(path, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = 5
    with pytest.raises(DatasetError, match="num_samples says 5 steps, actions has 4"):
        EpisodeDataset(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action_spec", "{"),
        ("action_spec", "[]"),
        ("action_spec", '{"names": ["x"]}'),
        ("observation_spec", "[" * 100_000),
        ("observation_spec", '{"cameras": {"../x": [1, 2]}, "proprio_names": [], "proprio_units": [], "control_hz": 1}'),
        ("attributes", 3.0),
        ("attributes", "x" * (1 << 23)),
    ],
)
def test_damaged_attributes_are_one_clear_error(write_file, make_episode, name, value):
    path = write_file([make_episode()])
    with h5py.File(path, "r+") as file:
        file["data"].attrs[name] = value
    with pytest.raises(QTransformerError, match=r"demo\.hdf5"):
        HDF5Episodes(path)

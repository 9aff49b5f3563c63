"""What `dones` and rewards say of how a foreign episode ended, and when it is asked for instead."""

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import HDF5Episodes


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


def test_success_is_refused_where_the_file_says_it(write_file, make_episode):
    path = write_file([make_episode()])
    with pytest.raises(DatasetError, match=r"success:all is for datasets that do not say .*data relabel"):
        HDF5Episodes(path, success="all")

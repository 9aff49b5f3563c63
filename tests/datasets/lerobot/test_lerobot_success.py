"""How an episode went: what the columns say, what somebody says, and what a demonstration is taken for."""

import warnings

import numpy as np
import pyarrow as pa
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes


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

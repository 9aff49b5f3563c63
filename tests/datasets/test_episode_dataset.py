"""The stream of frames, its statistics, and the sources it is made from."""

import dataclasses

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer_datasets import EpisodeDataset, HDF5Episodes
from qtransformer_datasets.stream.frames import return_bounds


@pytest.fixture
def episodes(make_episode):
    """A success of 2 steps, a time limit after 3, a step of both kinds, and a time limit whose final observation is lost."""
    rewards = np.array([0.5, 0.0, -1.0], np.float32)
    return [
        make_episode(2, 0),
        make_episode(3, 1, end="truncated", rewards=rewards, instruction="push"),
        make_episode(1, 2, end="both", success=False),
        make_episode(2, 3, end="truncated", has_final_observation=False),
    ]


def test_the_stream_by_hand(make_source, episodes):
    dataset = EpisodeDataset(make_source(episodes), discount=0.5)
    frames = dataset.frames()
    assert (dataset.num_frames, dataset.num_steps, dataset.num_episodes) == (12, 8, 4)
    assert frames.episode_start.tolist() == [0, 0, 0, 3, 3, 3, 3, 7, 7, 9, 9, 9]
    assert frames.has_action.tolist() == [x == "a" for x in "aa.aaa.a.aa."]
    assert frames.terminated.nonzero()[0].tolist() == [1, 7]
    assert frames.truncated.nonzero()[0].tolist() == [5, 7, 10]
    assert frames.lost_final.nonzero()[0].tolist() == [10]
    assert frames.success.tolist() == [True] * 3 + [False] * 9
    assert frames.instructions == ("pick up the red cube", "push")
    assert frames.instruction_id.tolist() == [0] * 3 + [1] * 4 + [0] * 5
    assert frames.mc_return.tolist() == [0.5, 1.0, 0, 0.25, -0.5, -1.0, 0, 0, 0, 0, 0, 0]
    assert (frames.actions[~frames.has_action] == 0).all()
    assert np.array_equal(frames.images["wrist"][3:7], episodes[1].images["wrist"])
    assert np.array_equal(frames.proprio[3:7], episodes[1].proprio)


def test_after_a_time_limit_the_worst_reward_may_come_for_ever(make_source, make_episode, episodes):
    """Discount .5, worst reward -1: -2 in the place of what was cut off. An episode that ended is worth what it was."""
    dataset = EpisodeDataset(make_source(episodes), discount=0.5)
    assert return_bounds(dataset.frames(), 0.5).tolist() == [0.5, 1.0, 0, 0.0, -1.0, -2.0, -2.0, 0, 0, -0.5, -1.0, -2.0]
    batch = next(dataset.segments(batch_size=1, lead=0, steps=12, lookahead=0, seed=0))
    assert sorted(batch.return_bound[0].tolist()) == sorted(return_bounds(dataset.frames(), 0.5).tolist())
    assert (batch.return_bound <= batch.mc_return).all()
    undiscounted = next(dataset.with_discount(1.0).segments(batch_size=1, lead=0, steps=12, lookahead=0, seed=0))
    assert undiscounted.return_bound.isneginf().sum() == 7
    kind = [make_episode(2, 0), make_episode(3, 1, end="truncated")]
    assert return_bounds(EpisodeDataset(make_source(kind), discount=0.5).frames(), 0.5) is None, "no reward is negative"
    over = [make_episode(3, 1, rewards=-np.ones(3, np.float32))]
    assert return_bounds(EpisodeDataset(make_source(over), discount=0.5).frames(), 0.5) is None, "none was cut short"


def test_statistics_by_hand(make_source, episodes):
    stats = EpisodeDataset(make_source(episodes), discount=0.5).stats
    proprio = np.concatenate([e.proprio for e in episodes])
    actions = np.concatenate([e.actions for e in episodes])
    np.testing.assert_allclose(stats.proprio_mean, proprio.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.proprio_std, proprio.std(0), rtol=1e-5)
    assert stats.proprio_std.dtype == stats.proprio_mean.dtype == np.float32
    assert np.array_equal(stats.action_min, actions.min(0))
    assert np.array_equal(stats.action_max, actions.max(0))
    assert stats.success_rate == 0.25
    assert stats.mean_length == 2.0
    assert stats.mean_return == (0.5 + 0.25 + 0 + 0) / 4
    assert (stats.return_min, stats.return_max) == (-1.0, 1.0)
    assert (stats.reward_min, stats.reward_max) == (-1.0, 1.0)
    assert (stats.going_on_reward_min, stats.going_on_reward_max) == (-1.0, 0.5)
    assert stats.truncated_share == 0.5  # terminated and truncated at once counts as terminated


def test_statistics_ignore_final_observations(make_source, make_episode):
    episode = make_episode(3, end="truncated", rewards=np.full(3, -2.0, np.float32), actions=np.full((3, 2), 0.5, np.float32))
    stats = EpisodeDataset(make_source([episode]), discount=1.0).stats
    assert (stats.reward_min, stats.reward_max) == (-2.0, -2.0)
    assert (stats.return_min, stats.return_max) == (-6.0, -2.0)
    assert stats.action_min.tolist() == stats.action_max.tolist() == [0.5, 0.5]


def test_episodes_come_back(make_source, episodes, write_file, assert_same_episode):
    for expected, found in zip(episodes, EpisodeDataset(make_source(episodes)).episodes(), strict=True):
        assert_same_episode(found, expected)
    path = write_file(episodes)
    for expected, found in zip(HDF5Episodes(path), EpisodeDataset(path), strict=True):
        assert_same_episode(found, expected)


def test_a_list_of_files_and_sources(make_source, episodes, write_file):
    paths = [write_file(episodes[:1], "a.hdf5"), str(write_file(episodes[1:2], "b.hdf5"))]
    together = EpisodeDataset([*paths, make_source(episodes[2:])])
    assert together.lengths == [2, 3, 1, 2]
    assert together.fingerprint == EpisodeDataset(make_source(episodes)).fingerprint
    assert EpisodeDataset(together).fingerprint == together.fingerprint


def test_specs_must_agree(make_source, episodes, write_file, action_spec):
    other = make_source(episodes, action_spec=dataclasses.replace(action_spec, high=(0.06, 1.0)))
    with pytest.raises(SpecMismatchError, match=r"ActionSpec\.high.*0\.05.*0\.06"):
        EpisodeDataset([write_file(episodes), other])


def test_discount_changes_returns_only(make_source, episodes):
    half = EpisodeDataset(make_source(episodes), discount=0.5)
    _ = half.stats
    full = half.with_discount(1.0)
    assert full.frames().mc_return[:2].tolist() == [1.0, 1.0]
    assert half.frames().mc_return[:2].tolist() == [0.5, 1.0]
    assert full.stats.mean_return != half.stats.mean_return
    assert full.frames().images["wrist"] is half.frames().images["wrist"]
    assert full.fingerprint == half.fingerprint
    with pytest.raises(ConfigError, match="discount"):
        half.with_discount(1.5)


@pytest.mark.parametrize("change", ["images", "actions", "rewards", "instruction", "truncated", "control_hz"])
def test_the_fingerprint_sees_every_change(make_source, make_episode, observation_spec, change):
    episode = make_episode(3)
    before = EpisodeDataset(make_source([episode])).fingerprint
    assert before == EpisodeDataset(make_source([make_episode(3)])).fingerprint
    if change == "images":
        episode.images["wrist"][1, 2, 3, 0] ^= 1
    elif change == "instruction":
        episode.instruction = "drop it"
    elif change == "truncated":
        episode.truncated[-1] = True
    elif change == "control_hz":
        observation_spec = dataclasses.replace(observation_spec, control_hz=11.0)
    else:
        getattr(episode, change)[0] = 0.25
    assert EpisodeDataset(make_source([episode], observation_spec=observation_spec)).fingerprint != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminated": np.zeros(3, bool)}, "neither terminated nor truncated"),
        ({"terminated": np.array([True, False, True])}, "only the last step"),
        ({"terminated": np.array([0, 0, 1])}, "terminated expected bool"),
        ({"images": {}}, "cameras"),
        ({"proprio": np.zeros((4, 3))}, "proprio expected float32"),
        ({"proprio": np.zeros((3, 3), np.float32)}, r"proprio expected shape \(4, 3\)"),
    ],
)
def test_bad_episodes_name_source_and_episode(make_source, make_episode, changes, message):
    with pytest.raises(DatasetError, match=f"ListSource, episode 1: .*{message}"):
        EpisodeDataset(make_source([make_episode(3), make_episode(3, **changes)]))


def test_rounding_beyond_one_is_forgiven(make_source, make_episode):
    actions = np.full((3, 2), 1.0 + 5e-7, np.float32)
    assert EpisodeDataset(make_source([make_episode(3, actions=actions)])).num_steps == 3


def test_nothing_to_read_is_an_error(make_source):
    for empty in ([], make_source([])):
        with pytest.raises(DatasetError, match="at least one"):
            EpisodeDataset(empty)

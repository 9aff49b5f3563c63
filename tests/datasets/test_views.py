"""Sources seen otherwise: every view is itself a source, and changes what it says and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.types import ObservationSpec
from qtransformer_datasets import HDF5Writer, open_episodes
from qtransformer_datasets.episodes.check import check_episode
from qtransformer_datasets.views import (
    MergedEpisodes,
    noisy_rewards,
    relabel_success,
    reward_success,
    select_cameras,
    select_episodes,
    shaped_rewards,
    shrink_images,
    success_rewards,
)

TWO_CAMERAS = ObservationSpec(
    cameras={"wrist": (6, 8, 3), "front": (4, 4, 3)}, proprio_names=("x",), proprio_units=("m",), control_hz=10.0
)


@pytest.fixture
def two_cameras(tmp_path, make_episode, action_spec):
    episodes = [make_episode(2 + i, i, observation_spec=TWO_CAMERAS) for i in range(3)]
    with HDF5Writer(tmp_path / "two.hdf5", action_spec, TWO_CAMERAS, {"recipe": "mine"}) as writer:
        for episode in episodes:
            writer.append(episode)
    return open_episodes(tmp_path / "two.hdf5"), episodes


def assert_is_a_source(view) -> None:
    assert len(view) == len(view.lengths) == len(list(view))
    for index, episode in enumerate(view):
        check_episode(episode, view.action_spec, view.observation_spec, str(view.path))
        assert view.lengths[index] == len(episode)
        assert np.array_equal(view.read(index).actions, episode.actions)


def test_rewards_are_scaled_before_every_step_costs(two_cameras) -> None:
    source, episodes = two_cameras
    shaped = shaped_rewards(source, 20.0, -1.0)
    assert_is_a_source(shaped)
    for seen, logged in zip(shaped, episodes, strict=True):
        assert np.array_equal(seen.rewards, 20 * logged.rewards - 1)
        assert (seen.success, len(seen)) == (logged.success, len(logged))


def test_noise_is_on_last_rewards_alone_and_an_episodes_own(two_cameras) -> None:
    source, episodes = two_cameras
    noisy = noisy_rewards(source, 0.3, seed=1)
    assert_is_a_source(noisy)
    added = [seen.rewards - logged.rewards for seen, logged in zip(noisy, episodes, strict=True)]
    assert all((rows[:-1] == 0).all() and 0 < rows[-1] < 0.3 for rows in added)
    assert len({float(rows[-1]) for rows in added}) == len(episodes)
    assert noisy.read(2).rewards[-1] == noisy_rewards(source, 0.3, seed=1).read(2).rewards[-1], "in whatever order they are read"
    assert noisy.read(2).rewards[-1] != noisy_rewards(source, 0.3, seed=2).read(2).rewards[-1]
    assert [seen.success for seen in noisy] == [logged.success for logged in episodes]


def test_cameras_are_renamed_and_dropped(two_cameras) -> None:
    source, episodes = two_cameras
    view = select_cameras(source, {"hand": "wrist"})
    assert_is_a_source(view)
    assert dict(view.observation_spec.cameras) == {"hand": (6, 8, 3)}
    assert np.array_equal(view.read(1).images["hand"], episodes[1].images["wrist"])
    assert view.attributes["recipe"] == "mine"
    assert set(source.read(1).images) == {"wrist", "front"}, "the source itself stays as it was"


def test_cameras_may_swap_their_names(two_cameras) -> None:
    source, episodes = two_cameras
    swapped = select_cameras(source, {"wrist": "front", "front": "wrist"}).read(0)
    assert np.array_equal(swapped.images["wrist"], episodes[0].images["front"])
    assert np.array_equal(swapped.images["front"], episodes[0].images["wrist"])


def test_a_camera_that_is_not_there_is_named_with_those_that_are(two_cameras) -> None:
    with pytest.raises(SpecMismatchError, match=r"\['front', 'wrist'\], found \['top'\]"):
        select_cameras(two_cameras[0], {"hand": "top"})


def test_images_shrink_by_the_mean_of_an_area(two_cameras, make_episode) -> None:
    source, _ = two_cameras
    view = shrink_images(source, (2, 4))
    assert_is_a_source(view)
    assert dict(view.observation_spec.cameras) == {"wrist": (2, 4, 3), "front": (2, 4, 3)}
    block = source.read(0).images["wrist"][0, :3, :2].astype(float)  # 6 x 8 to 2 x 4: blocks of 3 x 2
    assert np.abs(view.read(0).images["wrist"][0, 0, 0] - block.mean((0, 1))).max() <= 0.5 + 1e-6


def test_images_are_not_made_larger(two_cameras) -> None:
    with pytest.raises(ConfigError, match="camera 'front's 4 x 4, found 5 x 4"):
        shrink_images(two_cameras[0], (5, 4))


def test_rewards_follow_from_success_and_a_success_ends_the_task(make_episode) -> None:
    stopped = make_episode(3, end="truncated", success=True, rewards=np.array([5, 5, 5], np.float32))
    won = success_rewards(stopped)
    assert won.rewards.tolist() == [0, 0, 1]
    assert won.rewards.dtype == np.float32
    assert won.terminated.tolist() == [False, False, True]
    assert not won.truncated.any()
    lost = success_rewards(replace(stopped, success=False))
    assert lost.rewards.tolist() == [0, 0, 0]
    assert lost.truncated.tolist() == [False, False, True]
    assert stopped.rewards.tolist() == [5, 5, 5]


def test_success_is_set_before_rewards_follow(two_cameras) -> None:
    source, _ = two_cameras
    view = reward_success(relabel_success(source, False))
    assert_is_a_source(view)
    assert not any(episode.success or episode.rewards.any() for episode in view)


@settings(max_examples=20, deadline=None)
@given(indices=st.lists(st.integers(0, 4), max_size=8))
def test_episodes_are_picked_in_order(indices, make_episode, make_source) -> None:
    source = make_source([make_episode(1 + i, i) for i in range(5)])
    source.path, source.attributes = "list", {}
    source.lengths, source.read = [1 + i for i in range(5)], lambda i: source._episodes[i]
    view = select_episodes(source, indices)
    assert [episode.info["seed"] for episode in view] == indices
    assert view.lengths == [1 + i for i in indices]


def test_merging_keeps_order_and_what_all_say(write_file, make_episode) -> None:
    a = write_file([make_episode(2, 0), make_episode(3, 1)], "a.hdf5", robot="kuka", seed=1)
    b = write_file([make_episode(4, 2)], "b.hdf5", robot="kuka", seed=2)
    merged = MergedEpisodes([open_episodes(a), open_episodes(b)])
    assert_is_a_source(merged)
    assert merged.lengths == [2, 3, 4]
    assert merged.read(2).info == {"seed": 2}
    assert merged.attributes == {"robot": "kuka"}


def test_merging_other_cameras_lists_both_sides_and_how_to_rename(write_file, make_episode) -> None:
    a = open_episodes(write_file([make_episode(2)], "a.hdf5"))
    b = select_cameras(open_episodes(write_file([make_episode(2)], "b.hdf5")), {"hand": "wrist"})
    with pytest.raises(SpecMismatchError) as caught:
        MergedEpisodes([a, b])
    assert "{'wrist': [6, 8, 3]}" in str(caught.value)
    assert "{'hand': [6, 8, 3]}" in str(caught.value)
    assert "cameras={wrist:hand}" in str(caught.value)

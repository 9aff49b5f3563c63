"""Cameras that froze are told, and still scenes are not."""

import h5py
import numpy as np
import pytest

from qtransformer.types import Episode
from qtransformer_datasets import EpisodeDataset, inspect_dataset, open_episodes, verify
from qtransformer_datasets.curation.survey import survey
from qtransformer_datasets.episodes.frozen_cameras import frozen_cameras
from qtransformer_datasets.views import MergedEpisodes, select_episodes


def frozen(episode: Episode, first: int, last: int) -> Episode:
    """The image of row `first` until row `last`."""
    episode.images["wrist"][first : last + 1] = episode.images["wrist"][first]
    return episode


def test_a_frozen_camera_is_a_problem_with_camera_episode_and_steps(write_file, make_episode) -> None:
    path = write_file([make_episode(30), frozen(frozen(make_episode(30, 1), 4, 14), 17, 30)])
    [problem] = verify(path).problems
    assert "demo_1: camera 'wrist'" in problem
    assert "the very same image from step 4 to 14, 17 to 30: it froze while recording" in problem
    assert verify(path).lengths == {0: 30, 1: 30}, "it can be read all the same"
    assert problem in inspect_dataset(path)


def test_a_doubt_is_no_obstacle(write_file, make_episode) -> None:
    """Who splits or trains was told by `data validate`, and decides."""
    path = write_file([frozen(make_episode(30), 0, 30)])
    found = survey(open_episodes(path))
    assert (found.problems, len(found.doubts)) == ([], 1)
    assert EpisodeDataset(path).num_steps == 30


def test_episodes_are_named_as_in_their_file_whatever_is_left_out(write_file, make_episode) -> None:
    path = write_file([make_episode(2), make_episode(3, 1), frozen(make_episode(30, 2), 0, 30)])
    with h5py.File(path, "r+") as file:
        file["data/demo_0/rewards"][0] = np.nan
    with pytest.warns(UserWarning, match="skipped 1 of 3"):
        readable = open_episodes(path, on_bad_episode="skip")
    for source in (readable, select_episodes(readable, [1]), MergedEpisodes([readable, readable])):
        assert all("demo_2: camera" in doubt for doubt in survey(source).doubts)
        assert survey(source).doubts


@pytest.mark.parametrize("hz", [10.0, 30.0])
def test_ten_steps_are_frozen_and_nine_are_not(make_episode, hz) -> None:
    assert frozen_cameras(frozen(make_episode(30), 5, 14), hz, "x") == []
    assert len(frozen_cameras(frozen(make_episode(30), 5, 15), hz, "x")) == 1


def test_a_camera_slower_than_control_is_not_frozen(make_episode) -> None:
    episode = make_episode(120)
    episode.images["wrist"][:] = np.repeat(episode.images["wrist"][::12], 12, axis=0)[:121]
    assert frozen_cameras(episode, 100.0, "x") == []


def test_a_scene_that_stands_still_is_not_frozen(make_episode) -> None:
    """As in simulation, where an arm that rests has the same joints to the last bit."""
    episode = frozen(make_episode(40), 0, 40)
    episode.proprio[:] = episode.proprio[0]
    assert frozen_cameras(episode, 10.0, "x") == []
    moves_once_in_a_while = make_episode(40).proprio[np.arange(41) // 8]
    episode.proprio[:] = moves_once_in_a_while
    assert frozen_cameras(episode, 10.0, "x") == []


def test_noise_of_the_sensors_is_no_motion(make_episode) -> None:
    """Video shows a still scene as one image while the encoders' last digits go on changing."""
    episode = frozen(make_episode(60), 20, 50)
    episode.proprio[20:51] = episode.proprio[20] + np.random.default_rng(0).normal(0, 1e-3, (31, 3)).astype(np.float32)
    assert frozen_cameras(episode, 10.0, "x") == []


def test_an_arm_that_rests_all_along_is_not_frozen_however_its_encoders_jitter(make_episode) -> None:
    episode = frozen(make_episode(40), 0, 40)
    episode.proprio[:] = 0.5 + np.random.default_rng(0).normal(0, 1e-5, episode.proprio.shape).astype(np.float32)
    assert frozen_cameras(episode, 10.0, "x") == []


def test_a_final_observation_that_was_lost_is_not_frozen(make_episode) -> None:
    episode = frozen(make_episode(10), 0, 10)
    episode.proprio[-1] = episode.proprio[-2]
    assert frozen_cameras(episode, 10.0, "x") == []

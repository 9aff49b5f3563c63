"""Whether a copy is the same."""

from dataclasses import replace

import numpy as np
import pytest

from qtransformer_datasets import open_episodes
from qtransformer_datasets.curation.compare import compare, psnr
from qtransformer_datasets.views import EpisodeView


@pytest.fixture
def source(write_file, make_episode):
    return open_episodes(write_file([make_episode(3, i) for i in range(2)], robot="kuka", derived={"verb": "merge"}))


def test_a_copy_is_the_same(source, write_file) -> None:
    copy = open_episodes(write_file(list(source), "copy.hdf5", robot="kuka", derived={"verb": "convert"}))
    found = compare(source, copy)
    assert (found.episodes, found.differences, found.psnr) == (2, {}, {})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("actions", lambda _, e: replace(e, actions=e.actions * np.float32(0.5))),
        ("rewards", lambda _, e: replace(e, rewards=e.rewards + 1)),
        ("proprio", lambda _, e: replace(e, proprio=e.proprio.astype(np.float64))),
        ("timestamps", lambda _, e: replace(e, timestamps=np.arange(4.0))),
        ("instruction", lambda _, e: replace(e, instruction="other")),
        ("success", lambda _, e: replace(e, success=not e.success)),
        ("truncated", lambda _, e: replace(e, truncated=~e.truncated)),
        ("info", lambda _, e: replace(e, info={})),
        ("has_final_observation", lambda _, e: replace(e, has_final_observation=False)),
    ],
)
def test_every_part_is_compared(source, part, change) -> None:
    found = compare(source, EpisodeView(source, change=change))
    assert list(found.differences) == [part]
    assert found.differences[part].startswith("episode 0: ")


def test_images_are_judged_by_their_noise(source) -> None:
    def blur(index, episode):
        return replace(episode, images={name: rows ^ 1 for name, rows in episode.images.items()})  # every value off by one

    found = compare(source, EpisodeView(source, change=blur))
    assert found.differences == {"images": "camera wrist"}
    assert found.psnr["wrist"].mean == pytest.approx(20 * np.log10(255))
    assert found.psnr["wrist"].worst == pytest.approx(20 * np.log10(255))


def test_lost_attributes_and_episodes_are_told(source, write_file) -> None:
    shorter = open_episodes(write_file([source.read(0)], "one.hdf5"))
    assert compare(source, shorter).differences == {"attributes": "robot", "episodes": "there were 2, there are 1"}


def test_psnr_by_hand() -> None:
    assert psnr(0, 5) == float("inf")
    assert psnr(255.0**2 * 10, 10) == 0
    assert psnr(255.0**2, 100) == pytest.approx(20)

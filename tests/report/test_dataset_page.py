"""The page of a dataset: what it shows, and that it travels alone."""

import io
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from qtransformer.report.dataset_page import DatasetRecord, build_dataset_page, draw_cameras, film_cameras
from qtransformer.report.traces import LEFT, RIGHT, ROW, extremes, traces
from qtransformer.types import ActionSpec, Episode, ObservationSpec

from .test_page import Outline

ACTION = ActionSpec(names=("dx", "close"), low=(-0.05, 0.0), high=(0.05, 1.0), units=("m", "1"), discrete=(0, 2))
SEEN = ObservationSpec(
    cameras={"wrist": (16, 16, 3), "front": (12, 20, 3)}, proprio_names=("x",), proprio_units=("m",), control_hz=5.0
)


def make_episode(steps: int, seed: int, success: bool, instruction: str = "pick") -> Episode:
    rng = np.random.default_rng(seed)
    last = np.arange(steps) == steps - 1
    return Episode(
        images={name: rng.integers(0, 256, (steps + 1, *shape), np.uint8) for name, shape in SEEN.cameras.items()},
        proprio=rng.normal(size=(steps + 1, 1)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rewards=(last & success).astype(np.float32),
        terminated=last & success,
        truncated=last & (not success),
        instruction=instruction,
        success=success,
    )


@pytest.fixture
def page(tmp_path: Path) -> str:
    episodes = [make_episode(4 + i, i, i < 1, "<b>pick</b>") for i in range(4)]
    record = DatasetRecord(
        name="a & b.hdf5",
        origin="robomimic",
        action_spec=ACTION,
        observation_spec=SEEN,
        episodes={i: replace(e, images={}) for i, e in enumerate(episodes)},
        attributes={"recipe": "<script>"},
        problems=["demo_9: <torn>"],
    )
    out = build_dataset_page(record, [0, 2], lambda i: episodes[i], tmp_path / "view.html", "2 of 4 are shown")
    assert [path.name for path in tmp_path.iterdir()] == ["view.html"]
    return out.read_text()


def test_it_is_whole_and_asks_nothing_of_the_network(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(a.startswith(("data:", "#")) for a in outline.addresses)
    assert {a[1:] for a in outline.addresses if a.startswith("#")} <= set(outline.ids)
    assert outline.tags.count("video") == 2
    assert outline.tags.count("svg") == 2


def test_numbers_are_those_of_the_episodes(page: str) -> None:
    text = Outline(page).text
    assert "0.25 success, [0.05, 0.70] over 4 episodes" in text
    assert "Steps 22" in text
    assert "2 of 4 are shown" in text
    assert "4 steps, 0.8 s, terminated" in text
    assert "6 steps, 1.2 s, truncated" in text


def test_words_from_files_are_escaped(page: str) -> None:
    for raw in ("<b>pick</b>", "<script>\n</", "<torn>"):
        assert raw not in page
    assert "&lt;b&gt;pick&lt;/b&gt;" in page
    assert page.count("<script>") == 1, "the page's own"


def test_films_show_every_observation_of_every_camera() -> None:
    episode = make_episode(5, 0, True)
    with av.open(io.BytesIO(film_cameras(episode, 5.0))) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert float(film.streams.video[0].average_rate) == 5.0
    assert len(frames) == 6
    assert frames[0].shape == (264, 240 + 4 + 400, 3)
    shown = frames[3][:240, :240].astype(float).reshape(16, 15, 16, 15, 3).mean((1, 3))
    assert np.abs(shown - episode.images["wrist"][3]).mean() < 40, "lossy, but the same picture"
    assert np.abs(shown - episode.images["wrist"][2]).mean() > 60


@pytest.mark.parametrize("shapes", [[(480, 640)], [(7, 5)], [(1, 100), (100, 1)], [(9, 9)] * 7])
def test_frames_have_even_sizes_whatever_the_cameras(shapes: list[tuple[int, int]]) -> None:
    frame = draw_cameras({f"camera {i}": np.zeros((*shape, 3), np.uint8) for i, shape in enumerate(shapes)}, 1, 2)
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0


def points(svg: str) -> list[np.ndarray]:
    return [np.array([p.split(",") for p in line.split()], float) for line in re.findall(r'points="([^"]*)"', svg)]


def test_traces_stand_between_the_limits() -> None:
    dx, close, reward = points(traces(np.array([[-1, 1], [1, -1]], np.float32), np.array([0, 1], np.float32), ACTION))
    middle = (LEFT + RIGHT) / 2
    assert dx[:, 0].tolist() == close[:, 0].tolist() == reward[:, 0].tolist() == [LEFT, middle, middle, RIGHT]
    assert dx[:, 1].tolist() == [ROW - 2, ROW - 2, 2, 2]
    assert (close[:, 1] - close[:, 1].min()).tolist() == [0, 0, ROW - 4, ROW - 4]
    assert (reward[:, 1] - reward[:, 1].min()).tolist() == [ROW - 4, ROW - 4, 0, 0]


def test_a_single_reward_in_a_long_episode_is_not_lost() -> None:
    rewards = np.zeros(10_000)
    rewards[-1], rewards[1234] = 1, -1
    steps, kept = extremes(rewards)
    assert len(steps) <= 400
    assert (kept.max(), kept.min()) == (1, -1)
    assert {0, 1234, 9999} <= set(steps.tolist())


def test_rewards_that_never_come_are_a_line() -> None:
    *_, reward = points(traces(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), ACTION))
    assert len(set(reward[:, 1])) == 1

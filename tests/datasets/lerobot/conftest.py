"""What the tests of LeRobotDatasets share."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.datasets.lerobot import raw_datasets
from tests.datasets.lerobot.raw_datasets import RawEpisode, colour


@pytest.fixture(scope="session")
def raw_episode() -> type[RawEpisode]:
    return RawEpisode


@pytest.fixture(scope="session")
def write_v2() -> Callable[..., Path]:
    return raw_datasets.write_v2


@pytest.fixture(scope="session")
def write_v3() -> Callable[..., Path]:
    return raw_datasets.write_v3


@pytest.fixture(params=["v2", "v3"])
def write(request, write_v2, write_v3):
    return {"v2": write_v2, "v3": write_v3}[request.param]


@pytest.fixture
def three(raw_episode):
    return [raw_episode(0, 5), raw_episode(1, 9, task=1), raw_episode(2, 4)]


@pytest.fixture(scope="session")
def edit_info() -> Callable[..., None]:
    return raw_datasets.edit_info


@pytest.fixture(scope="session")
def edit_table() -> Callable[..., None]:
    return raw_datasets.edit_table


@pytest.fixture(scope="session")
def colours() -> Callable[[np.ndarray], list[tuple[int, ...]]]:
    """The colour of every frame, without its border."""
    return lambda images: [tuple(int(v) for v in frame[8:-8, 8:-8].reshape(-1, 3).mean(0).round()) for frame in images]


@pytest.fixture(scope="session")
def assert_colours(colours) -> Callable[[np.ndarray, RawEpisode], None]:
    """Every frame is the one of its step, up to the video's loss; neighbouring steps differ by 8."""

    def compare(images: np.ndarray, raw: RawEpisode) -> None:
        expected = [colour(raw.index, step) for step in range(raw.length)]
        found = colours(images[:-1])
        assert len(found) == len(expected)
        assert np.abs(np.array(found) - np.array(expected)).max() <= 3
        assert np.array_equal(images[-1], images[-2])

    return compare


@pytest.fixture(scope="session")
def jpeg_bytes() -> Callable[[np.ndarray], bytes]:
    return lambda image: io.BytesIO(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()).getvalue()

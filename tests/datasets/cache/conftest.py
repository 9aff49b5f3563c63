"""Episodes worth caching."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def episodes(make_episode) -> list:
    times = np.array([0.0, 0.1, 0.25])
    return [make_episode(2 + i % 5, i, end=("terminated", "truncated")[i % 2], instruction=f"task {i % 3}") for i in range(11)] + [
        make_episode(2, 50, end="truncated", has_final_observation=False, timestamps=times, info={"mode": "slow"})
    ]


@pytest.fixture
def path(write_file, episodes) -> Path:
    return write_file(episodes)

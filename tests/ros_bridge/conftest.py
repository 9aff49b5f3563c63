"""What the tests of a running policy share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves the tests' own modules out of reach

from hand_robot import Robot, make


@pytest.fixture
def robot() -> Robot:
    """Running, with samples seen."""
    return make().run()

"""What the tests of a running policy share."""

import pytest

from tests.ros_bridge.hand_robot import Robot, make


@pytest.fixture
def robot() -> Robot:
    """Running, with samples seen."""
    return make().run()

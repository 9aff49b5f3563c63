"""Real nodes as real processes. Needs rclpy: `make test-ros` runs these in `.venv-ros`; elsewhere they are not collected."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("rclpy") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.ros_nodes.harness import Graph

    @pytest.fixture
    def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
        """A ROS graph of the test's own; every process in it ends with the test."""
        with Graph(tmp_path, monkeypatch) as graph:
            yield graph

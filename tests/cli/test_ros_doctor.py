"""The traps of ROS environments, each found without ROS: from variables, installed wheels and files."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from qtransformer.cli import ros_doctor
from qtransformer_datasets.rosbag.topic_contract import TopicContract


def findings(
    monkeypatch: pytest.MonkeyPatch, shared_memory: Path, wheel: str = "9.1.2", **environment: str
) -> dict[str, ros_doctor.Finding]:
    monkeypatch.setattr(ros_doctor, "_wheel", lambda: wheel)
    monkeypatch.setattr(ros_doctor, "find_spec", lambda name: object())
    return {f.name: f for f in ros_doctor.ros({"HOME": str(shared_memory), **environment}, shared_memory)}


def test_wheels_beside_a_sourced_ros_are_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = findings(monkeypatch, tmp_path, ROS_DISTRO="jazzy")["ROS 2"]
    assert found.fatal
    assert "pip uninstall ros-rclpy" in found.remedy


def test_either_alone_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert findings(monkeypatch, tmp_path)["ROS 2"].state == "Kilted (rclpy 9.1.2) from PyPI"
    assert findings(monkeypatch, tmp_path, wheel="", ROS_DISTRO="jazzy")["ROS 2"].state == "jazzy, sourced"
    assert not findings(monkeypatch, tmp_path, wheel="7.1.6")["ROS 2"].remedy


def test_without_ros_both_ways_to_get_it_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = findings(monkeypatch, tmp_path, wheel="")["ROS 2"]
    assert not found.fatal
    assert ".[ros]" in found.state
    assert "--system-site-packages" in found.state


def test_the_library_path_of_another_environment_is_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inherited = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "LD_LIBRARY_PATH": "/other/venv/lib"}
    assert findings(monkeypatch, tmp_path, **inherited)["ROS libraries"].fatal
    assert "ROS libraries" not in findings(monkeypatch, tmp_path)


def test_nodes_need_a_place_for_their_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert findings(monkeypatch, tmp_path, HOME="")["ROS logs"].fatal
    assert not findings(monkeypatch, tmp_path, HOME="", ROS_LOG_DIR=str(tmp_path))["ROS logs"].fatal


def test_an_open_domain_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "SECURITY.md" in findings(monkeypatch, tmp_path)["ROS domain"].remedy
    assert not findings(monkeypatch, tmp_path, ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")["ROS domain"].remedy


def test_a_profile_that_is_not_there_is_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = tmp_path / "profile.xml"
    variables = {"FASTDDS_DEFAULT_PROFILES_FILE": str(profile)}
    assert findings(monkeypatch, tmp_path, **variables)["transport profile"].fatal
    profile.write_text("<profiles/>")
    assert not findings(monkeypatch, tmp_path, **variables)["transport profile"].fatal


def test_segments_of_killed_nodes_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fastrtps_abc").write_bytes(bytes(500_000))
    assert findings(monkeypatch, tmp_path)["ROS shared memory"].state.startswith("1 segments")


CONTRACT = TopicContract.shipped("simulated_kuka")


@pytest.fixture
def with_rclpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_doctor, "find_spec", lambda name: object())


@pytest.mark.usefixtures("with_rclpy")
def test_a_graph_that_does_not_answer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_doctor, "GRAPH_SECONDS", 0)
    [found] = ros_doctor.graph(CONTRACT)
    assert found.fatal
    assert found.state == "cannot be looked at: no answer within 0 s"
    assert "qtransformer_ros.nodes.graph" in found.remedy


@pytest.mark.usefixtures("with_rclpy")
def test_a_contract_that_cannot_be_read_is_what_is_wrong(tmp_path: Path) -> None:
    """Whether ROS is here is not the question then."""
    [found] = ros_doctor.graph(tmp_path / "nothere.yaml")
    assert found.fatal
    assert "nothere.yaml: cannot be read" in found.state
    (tmp_path / "odd.yaml").write_text("control_hz: fast\n")
    [odd] = ros_doctor.graph(tmp_path / "odd.yaml")
    assert "odd.yaml" in odd.state
    assert not any("pip install" in f.remedy or "cannot be looked at" in f.state for f in (found, odd))


def test_how_to_install_ros_is_told_where_rclpy_is_missing_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = CompletedProcess([], 1, stdout="", stderr="Traceback\nRuntimeError: no participant")
    monkeypatch.setattr(ros_doctor.subprocess, "run", lambda *_, **__: broken)
    monkeypatch.setattr(ros_doctor, "find_spec", lambda name: object())
    [found] = ros_doctor.graph(CONTRACT)
    assert found.fatal
    assert found.state == "cannot be looked at: RuntimeError: no participant"
    assert "pip install" not in found.remedy
    monkeypatch.setattr(ros_doctor, "find_spec", lambda name: None)
    [missing] = ros_doctor.graph(CONTRACT)
    assert missing.fatal
    assert missing.remedy == ros_doctor.BOTH_WAYS


SEEN = {"topic": "/t", "type": "Image", "publishers": 1, "subscribers": 1, "bytes": 0}


def test_a_command_topic_needs_one_listener_and_one_commander() -> None:
    assert "nobody listens" in ros_doctor._topic({**SEEN, "kind": "command", "subscribers": 0}).remedy
    assert "more than one publisher" in ros_doctor._topic({**SEEN, "kind": "command", "publishers": 2}).remedy
    assert not ros_doctor._topic({**SEEN, "kind": "command", "publishers": 0}).remedy


def test_images_beyond_the_shared_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ros_doctor.PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert "fastdds_large_images.xml" in ros_doctor._topic({**SEEN, "kind": "camera", "bytes": 921_600}).remedy
    assert not ros_doctor._topic({**SEEN, "kind": "camera", "bytes": 12_288}).remedy
    assert "start the driver" in ros_doctor._topic({**SEEN, "kind": "camera", "publishers": 0}).remedy

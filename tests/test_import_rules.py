"""Who may import whom: rooms of the house stay apart, so that each can be used, tested and replaced alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIM, DATASETS = ROOT / "sim" / "qtransformer_sim", ROOT / "datasets" / "qtransformer_datasets"
CORE = ROOT / "qtransformer"
ROS = ROOT / "ros_bridge" / "qtransformer_ros"
NODES = ROS / "nodes"
EDGE = (CORE / "cli", CORE / "report")
HEAVY = {
    "pybullet",
    "rclpy",
    "h5py",
    "cv2",
    "hydra",
    "omegaconf",
    "gymnasium",
    "matplotlib",
    "av",
    "tensorboard",
    "pyarrow",
    "rosbags",
}


def sources(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        found = sorted(folder.rglob("*.py"))
        assert found, f"{folder} holds no source: has it moved?"
        yield from found


def core() -> list[Path]:
    return [f for f in sources(CORE) if not any(f.is_relative_to(edge) for edge in EDGE)]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules a file imports, wherever in the file; `from a import b` counts as a and as a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def offences(files: list[Path], forbidden: set[str]) -> list[str]:
    return [f"{f.relative_to(ROOT)} imports {n}" for f in files for n in imports(f) if any(is_in(n, p) for p in forbidden)]


def test_the_core_imports_no_simulator_robot_file_format_or_plot() -> None:
    assert offences(core(), HEAVY) == []


def test_the_core_knows_no_other_room() -> None:
    assert offences(core(), {"qtransformer_sim", "qtransformer_datasets", "qtransformer.cli", "qtransformer.report"}) == []


def test_simulator_and_datasets_do_not_know_each_other() -> None:
    assert offences([*sources(SIM)], {"qtransformer_datasets"}) == []
    assert offences([*sources(DATASETS)], {"qtransformer_sim"}) == []


def test_ros_is_known_only_below_nodes() -> None:
    messages = {
        f"{name}_msgs" for name in ("std", "sensor", "geometry", "trajectory", "diagnostic", "lifecycle", "rosgraph", "tf2")
    }
    others = [f for f in sources(ROS) if NODES not in f.parents]
    ros = {"rclpy", "builtin_interfaces", "rcl_interfaces", "std_srvs", *messages}
    assert offences(others, {*ros, "qtransformer_ros.nodes"}) == []


def test_only_the_simulated_robot_knows_the_simulator() -> None:
    others = [f for f in sources(ROS) if f != NODES / "sim_node.py" and f.parent.name != "simulated"]
    assert offences(others, {"qtransformer_sim", "pybullet", "gymnasium"}) == []


def test_only_the_command_line_knows_the_nodes() -> None:
    others = [*core(), *sources(SIM, DATASETS), *(CORE / "report").rglob("*.py")]
    assert offences(others, {"qtransformer_ros"}) == []


def test_nobody_imports_the_command_line() -> None:
    others = [*core(), *sources(SIM, DATASETS, ROS), *(CORE / "report").rglob("*.py")]
    assert offences(others, {"qtransformer.cli"}) == []


def test_the_simulator_takes_only_words_and_errors_from_the_core() -> None:
    allowed = {"qtransformer.types", "qtransformer.errors"}
    used = {n for f in sources(SIM) for n in imports(f) if is_in(n, "qtransformer") and n != "qtransformer"}
    assert {n for n in used if not any(is_in(n, a) for a in allowed)} == set()


def test_datasets_need_no_learning() -> None:
    forbidden = {
        "qtransformer.learner",
        "qtransformer.trainer",
        "qtransformer.models",
        "qtransformer.policy",
        "qtransformer.targets",
    }
    assert offences([*sources(DATASETS)], forbidden) == []


@pytest.mark.parametrize(
    ("package", "room", "known"),
    [
        (DATASETS, "episodes", set()),
        *((DATASETS, format_of_files, {"episodes"}) for format_of_files in ("robomimic", "lerobot", "rosbag")),
        (DATASETS, "stream", {"episodes"}),
        (DATASETS, "cache", {"episodes", "stream", "formats"}),
        (ROS, "arm", set()),
        (ROS, "control", {"arm"}),
        (ROS, "policy", {"arm", "control"}),
        (ROS, "recorder", set()),
        (ROS, "simulated", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rooms_within_a_package_know_only_those_below(package: Path, room: str, known: set[str]) -> None:
    siblings = {f.relative_to(package).with_suffix("").parts[0] for f in sources(package)} - {room, *known}
    assert offences([*sources(package / room)], {f"{package.name}.{sibling}" for sibling in siblings}) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n    import cv2.aruco", "cv2.aruco"),
        ("from qtransformer import cli", "qtransformer.cli"),
        ("from .. import report", "qtransformer.report"),
    ],
)
def test_imports_are_seen_wherever_and_however_they_are_written(text: str, found: str, monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert found in set(imports(CORE / "models" / "vision.py"))

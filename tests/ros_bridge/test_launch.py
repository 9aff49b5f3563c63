"""The launch files, as far as they can be checked where ROS's `launch` is not installed: what they name exists."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))
PARAMETERS = sorted((LAUNCH / "params").glob("*.yaml"))


def console_scripts() -> set[str]:
    return set(re.findall(r"^(qtransformer-\w+) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))


def documented(node: str) -> set[str]:
    """Parameters of a node by its README, which tests/ros_nodes holds against the node itself."""
    text = (ROOT / "ros_bridge" / "README.md").read_text()
    section = text[text.index(f"(`/{node}`)") :].split("\n### ")[0]
    return set(re.findall(r"^\| `(\w+)` \| \w+ \| .*? \| (?:fixed|live) \|", section, re.MULTILINE))


def programs(path: Path) -> list[tuple[str, list[str]]]:
    """(program, names of the parameters given to it) of every call of `program` and `lifecycle_program`."""
    found = []
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("program", "lifecycle_program"):
            name, values = call.args[0], call.args[2]
            assert isinstance(name, ast.Constant)
            assert isinstance(values, ast.Dict)
            found.append((str(name.value), [str(key.value) for key in values.keys if isinstance(key, ast.Constant)]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_programs_and_their_parameters_exist(path: Path) -> None:
    assert programs(path)
    for name, parameters in programs(path):
        assert name in console_scripts()
        assert set(parameters) <= documented(name.replace("-", "_"))


def test_the_simulation_starts_all_programs() -> None:
    assert {name for name, _ in programs(LAUNCH / "sim.launch.py")} == console_scripts()


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda p: p.stem)
def test_parameter_files_name_parameters_that_exist(path: Path) -> None:
    for node, content in yaml.safe_load(path.read_text()).items():
        assert set(content["ros__parameters"]) <= documented(node)


@pytest.mark.parametrize("path", [p for p in PARAMETERS if p.stem != "sim"], ids=lambda p: p.stem)
def test_real_arms_start_slow_paused_and_with_limits_for_every_joint(path: Path) -> None:
    given = yaml.safe_load(path.read_text())["qtransformer_policy"]["ros__parameters"]
    counts = {len(given[name]) for name in ("joint_names", "joint_min_rad", "joint_max_rad", "joint_max_rad_s")}
    assert len(counts) == 1
    assert all(low < high for low, high in zip(given["joint_min_rad"], given["joint_max_rad"], strict=True))
    assert given["max_joint_velocity_scale"] <= 0.3
    assert given["start_paused"] is True
    assert given["auto_resume"] is False
    assert 'DeclareLaunchArgument("dry_run", default_value="true"' in (LAUNCH / "policy.launch.py").read_text()


def test_nothing_makes_our_folder_shadow_the_package_of_ros() -> None:
    assert not (LAUNCH / "__init__.py").exists()
    assert "exec_depend>launch_ros<" in (ROOT / "ros_bridge" / "package.xml").read_text()


def test_colcon_installs_the_same_programs_as_pip() -> None:
    text = (ROOT / "ros_bridge" / "setup.py").read_text()
    assert set(re.findall(r'"(qtransformer-\w+) = ', text)) == console_scripts()

"""What a node was told and does not have is refused: ROS itself drops it in silence."""

from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer_ros.nodes.parameter_names import check_names, check_places, help_line

DECLARED = ["checkpoint", "max_joint_velocity_scale", "use_sim_time", "start_type_description_service"]


def test_every_name_that_is_unknown_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as refused:
        check_names("/arm/policy", ["max_joint_velocity_scal", "checkpont", "zzz", "checkpoint"], DECLARED)
    said = str(refused.value)
    assert "/arm/policy has no parameter 'checkpont' (did you mean checkpoint?)" in said
    assert "no parameter 'max_joint_velocity_scal' (did you mean max_joint_velocity_scale?)" in said
    assert "no parameter 'zzz' (no similar name)" in said
    assert "no parameter 'checkpoint'" not in said


def test_what_is_declared_and_what_is_of_ros_is_taken() -> None:
    check_names("/policy", [*DECLARED, "qos_overrides./clock.subscription.depth"], DECLARED)
    with pytest.raises(ConfigError, match="no similar name"):  # ROS's own names are no help for ours
        check_names("/policy", ["use_sim_tim"], DECLARED)


FOR_US = ["policy", "/policy", "/**", "/*", "/**/policy"]
FOR_OTHERS = ["polcy", "/arm/policy", "sim"]


@pytest.mark.parametrize(("node", "fits"), [*((n, True) for n in FOR_US), *((n, False) for n in FOR_OTHERS)])
def test_a_file_has_something_for_the_node(tmp_path: Path, node: str, fits: bool) -> None:
    path = tmp_path / "careful.yaml"
    path.write_text(f"{node}:\n  ros__parameters: {{max_joint_velocity_scale: 0.1}}\nother:\n  ros__parameters: {{a: 1}}\n")
    arguments = ["program", "--ros-args", "-r", "__ns:=/", "--params-file", str(path)]
    if fits:
        check_places("/policy", arguments)
        return
    with pytest.raises(ConfigError, match=r"careful.yaml: nothing in it is for /policy: expected '/policy:' .* found .*/other"):
        check_places("/policy", arguments)


def test_namespaces_may_be_keys_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "careful.yaml"
    path.write_text("arm:\n  policy:\n    ros__parameters: {a: 1}\n")
    check_places("/arm/policy", ["--params-file", str(path)])
    with pytest.raises(ConfigError, match="found /arm/policy"):
        check_places("/policy", ["--params-file", str(path)])


def test_an_empty_file_is_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="found no node"):
        check_places("/policy", ["--params-file", str(tmp_path / "empty.yaml")])


def test_a_parameter_of_the_command_line_may_name_its_node() -> None:
    check_places("/policy", ["--ros-args", "-p", "policy:a:=1", "--param", "b:=x:=y", "-p", "box:=[1, 2]"])
    with pytest.raises(ConfigError, match="-p polcy:a:=1: nothing in it is for /policy"):
        check_places("/policy", ["--ros-args", "-p", "polcy:a:=1"])


@pytest.mark.parametrize(
    ("default", "shown"),
    [(0.5, "double, 0.5"), (3, "int, 3"), (True, "bool, true"), ("", "string, empty"), ([], "list, empty"), (["a"], "list, ['a']")],
)
def test_a_line_of_help_has_type_and_default(default: object, shown: str) -> None:
    assert help_line("x", default, "what [unit]") == f"  x ({shown}): what [unit]"
    assert help_line("x", default, "what", "one of a, b").endswith(": what (one of a, b)")

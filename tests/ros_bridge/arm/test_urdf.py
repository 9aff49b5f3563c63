"""Limits of a URDF, and everything that is none."""

import math
from pathlib import Path

import pytest

from qtransformer.errors import ConfigError
from qtransformer_ros.arm.safety_limits import JointRange
from qtransformer_ros.arm.urdf import read_urdf, urdf_limits

ROBOT = """<?xml version="1.0"?>
<robot name="arm">
  <link name="base"/>
  <joint name="lift" type="prismatic"><limit lower="0" upper="0.5" velocity="0.2" effort="9"/></joint>
  <joint name="elbow" type="revolute">
    <limit lower="-2.0" upper="2.0" velocity="3.0" effort="9"/>
    <safety_controller soft_lower_limit="-1.5" soft_upper_limit="2.5" k_velocity="1"/>
  </joint>
  <joint name="wrist" type="continuous"><limit velocity="4.0" effort="9"/></joint>
  <joint name="flange" type="fixed"/>
  <ros2_control name="arm" type="system"><joint name="elbow"><param name="x">1</param></joint></ros2_control>
  <transmission name="t"><joint name="elbow"/></transmission>
</robot>"""


def test_movable_joints_with_their_narrowest_limits(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(ROBOT)
    assert read_urdf(tmp_path / "arm.urdf") == {
        "lift": JointRange(low=0, high=0.5, velocity=0.2, prismatic=True),
        "elbow": JointRange(low=-1.5, high=2.0, velocity=3.0),
        "wrist": JointRange(low=-math.inf, high=math.inf, velocity=4.0),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not XML"),
        ("<robot>", "is not XML"),
        ("<robot>\0</robot>", "is not XML"),
        ("<sdf/>", "expected a URDF with root <robot>"),
        (ROBOT.replace('velocity="3.0"', ""), "elbow: .*velocity"),
        (ROBOT.replace('velocity="3.0"', 'velocity="nan"'), "elbow: velocity expected a finite number"),
        (ROBOT.replace('upper="2.0"', 'upper="__import__(1)"'), "elbow: upper expected a number"),
        (ROBOT.replace('upper="0.5"', 'upper="inf"'), "lift: upper expected a finite number"),
        (ROBOT.replace('<limit velocity="4.0" effort="9"/>', ""), "wrist has no <limit>"),
        (ROBOT.replace('lower="0" upper="0.5"', ""), "lift: .*low < high"),
    ],
)
def test_what_is_no_urdf_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        urdf_limits(text)


def test_entities_are_never_expanded_or_loaded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for entity in (f'SYSTEM "file://{tmp_path}/secret"', '"aaaa"'):
        text = f"<!DOCTYPE robot [<!ENTITY x {entity}>]>\n<robot name='&x;'/>"
        with pytest.raises(ConfigError, match="entities"):
            urdf_limits(text)
    bad = tmp_path / "bad.urdf"
    bad.write_bytes(f"<!DOCTYPE robot [<!ENTITY x SYSTEM 'file://{tmp_path}/secret'>]><robot/>".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-8"):
        read_urdf(bad)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_urdf(tmp_path / "none.urdf")
    with (tmp_path / "huge.urdf").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="16 MiB"):
        read_urdf(tmp_path / "huge.urdf")

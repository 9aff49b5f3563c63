"""What the launch files share: where programs, parameters and contracts are, after pip as after colcon."""

import shutil
from pathlib import Path
from typing import Any

from launch import Action
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

HERE = Path(__file__).resolve().parent
PARAMETERS = HERE / "params"
PROFILE = HERE / "fastdds_large_images.xml"
CONTRACTS = next(p for p in (HERE.parent / "contracts", HERE.parent / "datasets" / "contracts") if p.is_dir())
"""Installed beside launch/, or in the checkout."""


def program(name: str, parameters: Any, values: dict[str, Any], **options: Any) -> Node:
    """A console script as a node; its name is the script's with underscores."""
    return Node(**_where(name), name=name.replace("-", "_"), parameters=[parameters, values], output="screen", **options)


def lifecycle_program(name: str, parameters: list[Any], values: dict[str, Any]) -> LifecycleNode:
    """The same with a lifecycle; of several files of parameters the last one counts."""
    own = name.replace("-", "_")
    return LifecycleNode(**_where(name), name=own, namespace="", parameters=[*parameters, values], output="screen")


def transport() -> list[Action]:
    """Shared memory that holds large images, which Fast DDS loses by default; nothing beyond this machine is heard then."""
    # Kilted reads the first name, Jazzy the second.
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    wanted = IfCondition(LaunchConfiguration("large_images"))
    told = "shared memory for large images; false: Fast DDS's own transports, which reach other machines"
    return [
        DeclareLaunchArgument("large_images", default_value="true", description=told),
        *(SetEnvironmentVariable(name, str(PROFILE), condition=wanted) for name in names),
    ]


def _where(name: str) -> dict[str, str]:
    """pip puts the script on the path; colcon into the package's own folder, which only ROS knows."""
    return {"executable": name} if shutil.which(name) else {"package": "qtransformer_ros", "executable": name}

"""What the launch files share: where programs, parameters and contracts are, after pip as after colcon."""

import shutil
from pathlib import Path
from typing import Any

from launch.actions import SetEnvironmentVariable
from launch_ros.actions import LifecycleNode, Node

HERE = Path(__file__).resolve().parent
PARAMETERS = HERE / "params"
PROFILE = HERE / "fastdds_large_images.xml"
CONTRACTS = next(p for p in (HERE.parent / "contracts", HERE.parent / "datasets" / "contracts") if p.is_dir())
"""Installed beside launch/, or in the checkout."""


def program(name: str, parameters: Any, values: dict[str, Any], **options: Any) -> Node:
    """A console script as a node; its name is the script's with underscores."""
    return Node(**_where(name), name=name.replace("-", "_"), parameters=[parameters, values], output="screen", **options)


def lifecycle_program(name: str, parameters: Any, values: dict[str, Any]) -> LifecycleNode:
    own = name.replace("-", "_")
    return LifecycleNode(**_where(name), name=own, namespace="", parameters=[parameters, values], output="screen")


def transport() -> list[SetEnvironmentVariable]:
    """Shared memory that holds large images: by default Fast DDS loses them."""
    # Kilted reads the first name, Jazzy and Humble the second.
    names = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    return [SetEnvironmentVariable(name, str(PROFILE)) for name in names]


def _where(name: str) -> dict[str, str]:
    """pip puts the script on the path; colcon into the package's own folder, which only ROS knows."""
    return {"executable": name} if shutil.which(name) else {"package": "qtransformer_ros", "executable": name}

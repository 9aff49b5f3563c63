"""Joint limits out of a robot's URDF. A URDF is data from elsewhere: nothing in it is run, loaded or expanded."""

import math
import os
from pathlib import Path
from xml.etree import ElementTree

from qtransformer.errors import ConfigError
from qtransformer_ros.arm.safety_limits import JointRange

MAX_BYTES = 16 << 20
"""Robot descriptions are tens of kilobytes."""


def read_urdf(path: str | os.PathLike[str]) -> dict[str, JointRange]:
    """`urdf_limits` of a file. Raises ConfigError naming it."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: a URDF expected at most {MAX_BYTES >> 20} MiB, found {path.stat().st_size} bytes")
        return urdf_limits(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a URDF in UTF-8 ({error})") from error


def urdf_limits(text: str, where: str = "robot_description") -> dict[str, JointRange]:
    """Every movable joint's range by name; soft limits of a safety controller count where they are narrower.

    Raises ConfigError: no URDF, a document type or entities (which may load files or grow without bound), limits that are
    missing or senseless.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: a URDF expected at most {MAX_BYTES >> 20} MiB, found {len(text)} characters")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ConfigError(f"{where}: declares a document type or entities, which no URDF needs; remove them")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ConfigError(f"{where}: is not XML ({error}); expected a URDF (run xacro first)") from error
    if root.tag != "robot":
        raise ConfigError(f"{where}: expected a URDF with root <robot>, found <{root.tag[:40]}>")
    # Direct children only: <transmission> and <ros2_control> hold <joint> elements of another meaning.
    movable = [joint for joint in root.findall("joint") if joint.get("type") in ("revolute", "prismatic", "continuous")]
    return {joint.get("name", ""): _range(joint, where) for joint in movable}


def _range(joint: ElementTree.Element, where: str) -> JointRange:
    place = f"{where}: joint {joint.get('name')}"
    limit, soft = joint.find("limit"), joint.find("safety_controller")
    if limit is None:
        raise ConfigError(f"{place} has no <limit>; give its limits by parameters, or complete the URDF")
    endless = joint.get("type") == "continuous"
    # The URDF standard: positions default to 0, which JointRange refuses as an empty range.
    low = -math.inf if endless else _number(limit, "lower", 0.0, place)
    high = math.inf if endless else _number(limit, "upper", 0.0, place)
    if soft is not None and not endless:
        low = max(low, _number(soft, "soft_lower_limit", low, place))
        high = min(high, _number(soft, "soft_upper_limit", high, place))
    try:
        return JointRange(
            low=low, high=high, velocity=_number(limit, "velocity", 0.0, place), prismatic=joint.get("type") == "prismatic"
        )
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _number(element: ElementTree.Element, name: str, default: float, place: str) -> float:
    text = element.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        raise ConfigError(f"{place}: {name} expected a number, found {(text or '')[:40]!r}") from None
    if not math.isfinite(value):
        raise ConfigError(f"{place}: {name} expected a finite number, found {value}")
    return value

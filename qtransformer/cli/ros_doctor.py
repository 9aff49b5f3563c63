"""The doctor's ROS part: what keeps nodes from starting, from hearing each other, and from moving the arm."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qtransformer.cli.findings import Finding
from qtransformer.errors import ConfigError

DISTRIBUTIONS = {"7": "Jazzy", "9": "Kilted"}
"""Major version of the rclpy wheel to the ROS release."""
SEGMENT_BYTES = 512 * 1024
"""Fast DDS's shared memory by default: larger messages that are sent best-effort are lost in silence."""
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
BOTH_WAYS = (
    "without ROS on this machine: pip install -e '.[ros]' in the checkout (x86-64 Linux; `make ros-demo` does it in .venv-ros); "
    "with ROS 2 from packages: source /opt/ros/<distro>/setup.bash and install without that extra into a venv "
    "made with --system-site-packages"
)
GRAPH_SECONDS = 60


def ros(environment: Mapping[str, str] = os.environ, shared_memory: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """What is wrong before any node runs."""
    wheel, sourced = _wheel(), environment.get("ROS_DISTRO", "")
    if not wheel and not sourced:
        yield Finding("ROS 2", f"not here; only the nodes need it: {BOTH_WAYS}")
        return
    yield _installation(wheel, sourced)
    yield from _bootstrap(wheel, environment)
    yield _log_folder(environment)
    domain, reach = environment.get("ROS_DOMAIN_ID", "0"), environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    everyone = reach == "SUBNET" and environment.get("ROS_LOCALHOST_ONLY", "0") != "1"
    remedy = "every machine of the network may command this arm: see SECURITY.md" if everyone else ""
    yield Finding(
        "ROS domain", f"{domain}, discovery {reach}, {environment.get('RMW_IMPLEMENTATION', 'default middleware')}", remedy
    )
    yield from _profile(environment)
    yield from _leftovers(shared_memory)


def _wheel() -> str:
    try:
        return version("ros-rclpy")
    except PackageNotFoundError:
        return ""


def _installation(wheel: str, sourced: str) -> Finding:
    if wheel and sourced:
        return Finding(
            "ROS 2",
            f"wheels of {_name(wheel)} in this environment AND a sourced ROS 2 {sourced}",
            "the two load each other's libraries, and crash or not by chance: uninstall the [ros] extra (pip uninstall ros-rclpy), "
            "or work in a shell where /opt/ros is not sourced",
            fatal=True,
        )
    if find_spec("rclpy") is None:
        state = f"{sourced} is sourced, but this Python cannot import rclpy"
        return Finding("ROS 2", state, "make the venv with --system-site-packages, from the same Python that ROS uses", fatal=True)
    return Finding("ROS 2", f"{_name(wheel)} from PyPI" if wheel else f"{sourced}, sourced")


def _name(wheel: str) -> str:
    return f"{DISTRIBUTIONS.get(wheel.split('.')[0], 'unknown')} (rclpy {wheel})"


def _bootstrap(wheel: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The wheels re-execute Python with a library path. Inherited by a process of another environment, that path is wrong."""
    path = environment.get("LD_LIBRARY_PATH", "")
    if wheel and environment.get("_ROS_WHEELS_BOOTSTRAP_COMPLETE") and str(Path(sys.prefix) / "lib") not in path:
        remedy = "start it with `env -u _ROS_WHEELS_BOOTSTRAP_COMPLETE -u LD_LIBRARY_PATH ...`"
        yield Finding("ROS libraries", f"library path of another environment: {path or 'empty'}", remedy, fatal=True)


def _log_folder(environment: Mapping[str, str]) -> Finding:
    home = environment.get("ROS_LOG_DIR") or environment.get("ROS_HOME") or environment.get("HOME")
    if not home:
        return Finding("ROS logs", "neither HOME nor ROS_LOG_DIR is set", "nodes cannot start: set ROS_LOG_DIR", fatal=True)
    folder = Path(environment.get("ROS_LOG_DIR") or Path(home) / ".ros" / "log")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    remedy = f"one file per process piles up: delete the old ones in {folder}" if count > 1000 else ""
    return Finding("ROS logs", f"{folder}, {count} entries", remedy)


def _profile(environment: Mapping[str, str]) -> Iterator[Finding]:
    named = next((environment[v] for v in PROFILE_VARIABLES if environment.get(v)), "")
    if named and not Path(named).is_file():
        yield Finding("transport profile", f"{named} is no file", "let it name launch/fastdds_large_images.xml", fatal=True)
    elif named:
        yield Finding("transport profile", named)


def _leftovers(shared_memory: Path) -> Iterator[Finding]:
    """Killed nodes leave their segments behind, half a megabyte each."""
    if not shared_memory.is_dir():
        return
    found = [path for path in shared_memory.iterdir() if path.name.startswith(("fastrtps_", "fastdds_"))]
    size, free = sum(path.stat().st_size for path in found), shutil.disk_usage(shared_memory).free
    little = free < 64e6
    remedy = f"with no node running: rm {shared_memory}/fastrtps_* {shared_memory}/fastdds_*" if found and little else ""
    yield Finding("ROS shared memory", f"{len(found)} segments of running or killed nodes, {size / 1e6:.0f} MB", remedy)


def graph(contract: Path) -> Iterator[Finding]:
    """Who talks on the contract's topics right now, and whether images are too large for the transport."""
    from qtransformer_datasets.rosbag.topic_contract import TopicContract  # here: a doctor must live where packages are missing

    try:
        TopicContract.load(contract)
    except ConfigError as error:
        yield Finding("topic contract", str(error), "name a contract that can be read: contract=FILE", fatal=True)
        return
    if find_spec("rclpy") is None:
        yield Finding("topics", "cannot be looked at: this Python cannot import rclpy", BOTH_WAYS, fatal=True)
        return
    command = [sys.executable, "-m", "qtransformer_ros.nodes.graph", str(contract)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GRAPH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        state = f"cannot be looked at: no answer within {GRAPH_SECONDS} s"
        yield Finding("topics", state, f"{_in_the_open(command)}; or look again when less runs on this machine", fatal=True)
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode} and no message"])[-1]
        yield Finding("topics", f"cannot be looked at: {last}", _in_the_open(command), fatal=True)
        return
    for topic in json.loads(done.stdout.splitlines()[-1]):
        yield _topic(topic)


def _in_the_open(command: Sequence[str]) -> str:
    return f"see all that it says: {shlex.join(command)}"


def _topic(seen: dict[str, Any]) -> Finding:
    name, publishers, subscribers = seen["topic"], seen["publishers"], seen["subscribers"]
    state = f"{seen['type']}, {publishers} publishers, {subscribers} subscribers"
    if seen["kind"] == "command":
        remedy = "" if subscribers else f"nobody listens: no controller would move. Start it, or remap {name} in the contract"
        if publishers > 1:
            remedy = "more than one publisher would command the arm: stop the others"
        return Finding(name, state, remedy)
    if not publishers:
        return Finding(name, state, "nobody publishes it: start the driver, or correct the topic in the contract")
    size = seen.get("bytes", 0)
    if size > SEGMENT_BYTES and not any(os.environ.get(v) for v in PROFILE_VARIABLES):
        names = " or ".join(PROFILE_VARIABLES)
        remedy = f"beyond Fast DDS's shared memory, best-effort images are lost: let {names} name launch/fastdds_large_images.xml"
        return Finding(name, f"{state}, {size} bytes a message", remedy)
    return Finding(name, f"{state}, {size} bytes a message" if size else state)

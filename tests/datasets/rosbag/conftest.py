"""Real bags of another robot: seven joints and a gripper, two cameras of different sizes, written with `rosbags`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
START = 1_700_000_000_000_000_000
MS = 1_000_000
PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


@dataclass
class Sent:
    """A message with its times [ns]; `stamp` goes into its header where it has one."""

    topic: str
    type: str
    receive: int
    stamp: int
    fields: Any = field(default_factory=dict)
    """Its other fields by name; or all of it as CDR, for a type that is in no standard release."""


def time_of(ns: int) -> Any:
    return TYPES["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)


def header(ns: int) -> Any:
    return TYPES["std_msgs/msg/Header"](stamp=time_of(ns), frame_id="base")


def image(pixels: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> dict[str, Any]:
    rows = pixels.reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "step": padded.shape[1]}
    return {**size, "encoding": encoding, "is_bigendian": 0, "data": padded.reshape(-1)}


def compressed(pixels: np.ndarray, suffix: str = ".png") -> dict[str, Any]:
    _, data = cv2.imencode(suffix, pixels[..., ::-1])
    return {"format": f"rgb8; {suffix[1:]} compressed bgr8", "data": data.reshape(-1)}


def joint_state(names: tuple[str, ...], position: Mapping[str, float] | np.ndarray) -> dict[str, Any]:
    values = [position[n] for n in names] if isinstance(position, Mapping) else position
    empty = np.zeros(0)
    return {"name": list(names), "position": np.array(values, np.float64), "velocity": empty, "effort": empty}


def trajectory(names: tuple[str, ...], points: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
    duration, empty = TYPES["builtin_interfaces/msg/Duration"], np.zeros(0)
    kind = TYPES["trajectory_msgs/msg/JointTrajectoryPoint"]
    return {
        "joint_names": list(names),
        "points": [
            kind(
                positions=np.array(positions, np.float64),
                velocities=empty,
                accelerations=empty,
                effort=empty,
                time_from_start=duration(sec=after // 10**9, nanosec=after % 10**9),
            )
            for after, positions in points
        ],
    }


def numbers(values: list[float]) -> dict[str, Any]:
    return {"layout": TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0), "data": np.array(values, np.float64)}


def message(sent: Sent) -> Any:
    stamped = {"header": header(sent.stamp)} if "header" in TYPES[sent.type].__dataclass_fields__ else {}
    return TYPES[sent.type](**stamped, **sent.fields)


def wrist_pixels(i: int) -> np.ndarray:
    return np.random.default_rng((1, i)).integers(0, 256, (84, 84, 3), np.uint8)


def scene_pixels(i: int) -> np.ndarray:
    return np.random.default_rng((2, i)).integers(0, 256, (48, 64, 3), np.uint8)


def joint_value(i: int, joint: int) -> float:
    return 0.01 * i + 0.1 * joint


def demonstration(steps: int = 5, latency: int = 3 * MS, start: int = START) -> list[Sent]:
    """10 Hz of everything, sample i stamped start + i * 100 ms; commands 20 ms after the tick they answer.

    Joint k of sample i is at 0.01 i + 0.1 k; its command at 0.01 i + 0.1 k + 0.005. The order of joints changes from message
    to message. Every message is received `latency` after its stamp.
    """
    sent = []
    for i in range(steps + 1):
        t = start + i * 100 * MS
        names = tuple(np.random.default_rng(i).permutation([*JOINTS, "finger"]).tolist())
        position = {name: joint_value(i, k) for k, name in enumerate(JOINTS)} | {"finger": 0.02}
        sent += [
            Sent("/wrist/image_raw", "sensor_msgs/msg/Image", t + latency, t, image(wrist_pixels(i))),
            Sent("/scene/image/compressed", "sensor_msgs/msg/CompressedImage", t + latency, t, compressed(scene_pixels(i))),
            Sent("/joint_states", "sensor_msgs/msg/JointState", t + latency, t, joint_state(names, position)),
        ]
        if i < steps:
            at, shuffled = t + 20 * MS, tuple(np.random.default_rng(100 + i).permutation(JOINTS).tolist())
            goal = trajectory(shuffled, [(100 * MS, np.array([joint_value(i, JOINTS.index(n)) + 0.005 for n in shuffled]))])
            sent += [
                Sent("/commands", "trajectory_msgs/msg/JointTrajectory", at + latency, at, goal),
                Sent("/gripper", "std_msgs/msg/Float64MultiArray", at, at, numbers([float(i >= 2)])),
            ]
    said = start + steps * 100 * MS + 50 * MS
    sent.append(Sent("/outcome", "std_msgs/msg/String", said, said, {"data": "success"}))
    return sent


def events(*said: tuple[float, str], topic: str = "/event") -> list[Sent]:
    """Words, each with when it is said, from START on [s]."""
    at = [START + round(t * 1000) * MS for t, _ in said]
    return [Sent(topic, "std_msgs/msg/String", t, t, {"data": word}) for t, (_, word) in zip(at, said, strict=True)]


def drop(sent: list[Sent], topic: str, *stamps: int) -> list[Sent]:
    """Without the messages of a topic that have these stamps."""
    return [s for s in sent if not (s.topic == topic and s.stamp in stamps)]


MARKERS = "\nepisodes:\n  start: {topic: /event, words: [start]}\n  stop: {topic: /event, words: [stop, success, failure]}\n"
CONTRACT = """
control_hz: 10
clock: header
tolerance_s: 0.05
cameras:
  wrist: {topic: /wrist/image_raw}
  scene: {topic: /scene/image/compressed, type: CompressedImage}
proprio:
  - {topic: /joint_states, type: JointState, joints: [joint1, joint2, joint3, joint4, joint5, joint6, joint7], units: rad}
  - {topic: /joint_states, type: JointState, joints: [finger], units: m}
action:
  - topic: /commands
    type: JointTrajectory
    joints: [joint1, joint2, joint3, joint4, joint5, joint6, joint7]
    units: rad
    low: -1
    high: 1
  - {topic: /gripper, type: Float64MultiArray, values: [gripper], units: "1", low: 0, high: 1, discrete: 2}
instruction: {text: pick up the red cube}
outcome: {topic: /outcome}
"""


@pytest.fixture(scope="session")
def robot() -> Any:
    """This module: the robot's messages and the words to build others."""
    import sys

    return sys.modules[__name__]


@pytest.fixture
def contract_file(tmp_path: Path) -> Callable[..., Path]:
    """The robot's contract, with pieces of its text replaced."""

    def write(*changes: tuple[str, str], text: str = CONTRACT) -> Path:
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "contract.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def write_bag(tmp_path: Path) -> Callable[..., Path]:
    """Messages to a finished bag, in the order of receipt."""

    def write(
        sent: list[Sent],
        name: str = "bag",
        storage: str = "mcap",
        custom_data: Mapping[str, str] | None = None,
        little_endian: bool = True,
        **compression: Any,
    ) -> Path:
        writer = Writer(tmp_path / name, version=9, storage_plugin=PLUGINS[storage])
        if compression:
            writer.set_compression(**compression)
        for key, value in (custom_data or {}).items():
            writer.set_custom_data(key, value)
        with writer:
            connections: dict[str, Any] = {}
            for s in sorted(sent, key=lambda s: s.receive):
                if s.topic not in connections:
                    own = {"msgdef": "", "rihs01": "RIHS01_0"} if isinstance(s.fields, bytes) else {"typestore": STORE}
                    connections[s.topic] = writer.add_connection(s.topic, s.type, **own)
                data = (
                    s.fields
                    if isinstance(s.fields, bytes)
                    else STORE.serialize_cdr(message(s), s.type, little_endian=little_endian)
                )
                writer.write(connections[s.topic], s.receive, data)
        return tmp_path / name

    return write


@pytest.fixture
def bag(write_bag: Callable[..., Path]) -> Iterator[Path]:
    return write_bag(demonstration())

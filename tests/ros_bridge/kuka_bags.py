"""Bags of the simulated Kuka, written by the recorder's own code from a real rollout of the simulator, with no ROS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.types import Episode
from qtransformer_datasets.rosbag.storage import RawMessage
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.recorder.recorded_bag import TopicInfo, distribution_types
from qtransformer_ros.recorder.recording import Recorder, RecorderSettings

CONTRACT = Path(__file__).parents[2] / "datasets" / "contracts" / "simulated_kuka.yaml"
TYPES = distribution_types("jazzy")
MS = 1_000_000
START = 1_700_000_000_000_000_000
PERIOD = 250 * MS
Sent = tuple[str, str, int, Any]
"""Topic, type, receipt [ns], message."""


def make(kind: str, **fields: Any) -> Any:
    return TYPES.types[kind](**fields)


def header(ns: int) -> Any:
    stamp = make("builtin_interfaces/msg/Time", sec=ns // 10**9, nanosec=ns % 10**9)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id="")


def word(text: str) -> Any:
    return make("std_msgs/msg/String", data=text)


def observation(episode: Episode, k: int, contract: TopicContract, stamp: int, receive: int) -> Iterator[Sent]:
    pixels, none = episode.images["wrist"][k], np.zeros(0)
    image = make(
        "sensor_msgs/msg/Image",
        header=header(stamp),
        height=64,
        width=64,
        encoding="rgb8",
        is_bigendian=0,
        step=192,
        data=pixels.reshape(-1),
    )
    yield "/camera/wrist/image_raw", "sensor_msgs/msg/Image", receive, image
    at = 0
    for i, source in enumerate(contract.proprio):
        position = episode.proprio[k][at : at + len(source)].astype(np.float64)
        at += len(source)
        state = make(
            "sensor_msgs/msg/JointState",
            header=header(stamp),
            name=list(source.joints),
            position=position,
            velocity=none,
            effort=none,
        )
        yield source.topic, "sensor_msgs/msg/JointState", receive + i, state


def decision(contract: TopicContract, stamp: int, receive: int) -> Sent:
    pair, kind = "diagnostic_msgs/msg/KeyValue", "diagnostic_msgs/msg/DiagnosticArray"
    values = [make(pair, key=source.topic, value=str(stamp)) for source in contract.observed]
    status = make("diagnostic_msgs/msg/DiagnosticStatus", level=0, name="consumed", message="", hardware_id="", values=values)
    return "/qtransformer_policy/consumed", kind, receive, make(kind, header=header(stamp), status=[status])


def command(action: np.ndarray, stamp: int, receive: int) -> Iterator[Sent]:
    """Increments (6,) in robot units as velocities and switches."""
    vector = "geometry_msgs/msg/Vector3"
    vx, vy, vz, wz = (float(v) * 4 for v in action[:4])
    twist = make("geometry_msgs/msg/Twist", linear=make(vector, x=vx, y=vy, z=vz), angular=make(vector, x=0.0, y=0.0, z=wz))
    kind = "geometry_msgs/msg/TwistStamped"
    yield "/servo_node/delta_twist_cmds", kind, receive, make(kind, header=header(stamp), twist=twist)
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    closes = make("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array([action[4]], np.float64))
    yield "/gripper_controller/commands", "std_msgs/msg/Float64MultiArray", receive, closes
    yield "/policy/terminate", "std_msgs/msg/Bool", receive, make("std_msgs/msg/Bool", data=bool(action[5] > 0.5))


def messages(episode: Episode, actions: np.ndarray, contract: TopicContract, start: int = START) -> Iterator[Sent]:
    """What is on the wire in lockstep: `actions` (T, 6) in robot units."""
    yield "/episode/event", "std_msgs/msg/String", start, word("start")
    for k in range(len(episode) + 1):
        receive, stamp = start + MS + 20 * MS * k, 10**9 + PERIOD * k
        yield from observation(episode, k, contract, stamp, receive)
        if k < len(episode):
            yield decision(contract, stamp, receive + 5 * MS)
            yield from command(actions[k], stamp, receive + 6 * MS)
    outcome = "success" if episode.success else "timeout" if episode.truncated[-1] else "failure"
    yield "/episode/event", "std_msgs/msg/String", start + 3 * MS + 20 * MS * len(episode), word(outcome)


class Playback:
    """A recorder that is told what was on the wire."""

    def __init__(self, folder: Path, contract: TopicContract | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.contract = contract or TopicContract.load(CONTRACT).resolved()
        self.said = list[tuple[bool, str]]()
        self.words = {"task": "", "seed": "3"}
        own = RecorderSettings(**{"auto": True, **settings})
        self.recorder = Recorder(folder, self.contract, TYPES, own, lambda: self.words, lambda *said: self.said.append(said))

    def send(self, sent: Sent) -> None:
        topic, kind, receive, message = sent
        data = bytes(TYPES.serialize_cdr(message, kind))
        self.recorder.receive(TopicInfo(type=kind), RawMessage(topic, receive, data), receive / 1e9)

    def play(self, sent: Iterator[Sent]) -> None:
        """Everything, in the order of receipt, and then enough time for the bag to be finished."""
        last = 0
        for one in sorted(sent, key=lambda own: own[2]):
            self.send(one)
            last = one[2]
        self.recorder.tick(last / 1e9 + 10)

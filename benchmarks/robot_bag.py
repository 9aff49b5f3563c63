"""Episodes as bags, as a robot would have recorded them, and the contract that reads them back.

    python benchmarks/robot_bag.py out=data/bags episodes=8 storage=mcap      # the robot of other_robot.py; a contract beside it

Cameras and joint states are stamped at their tick, commands 20 ms later, everything is received 3 ms after its stamp; the order of
joints changes from message to message.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import command_line
from other_robot import ACTION, OBSERVATION, make_episode
from qtransformer.types import ActionSpec, Episode, ObservationSpec

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
START, MILLISECOND = 1_700_000_000 * 10**9, 10**6


def contract(actions: ActionSpec, observations: ObservationSpec) -> dict[str, Any]:
    """What the topics of `write_bag` mean."""
    return {
        "control_hz": observations.control_hz,
        "clock": "header",
        "tolerance_s": 0.05,
        "cameras": {name: {"topic": f"/{name}/image_raw"} for name in observations.cameras},
        "proprio": [
            {"topic": "/joint_states", "type": "JointState", "joints": [name], "units": unit}
            for name, unit in zip(observations.proprio_names, observations.proprio_units, strict=True)
        ],
        "action": [
            {
                "topic": f"/commands/{name}",
                "type": "Float64MultiArray",
                "values": [name],
                "units": actions.units[i],
                "low": actions.low[i],
                "high": actions.high[i],
                **({"discrete": actions.discrete[i]} if actions.discrete[i] else {}),
            }
            for i, name in enumerate(actions.names)
        ],
        "instruction": {"topic": "/task"},
        "outcome": {"topic": "/outcome"},
    }


def main(out: str = "data/bags", episodes: int = 8, storage: str = "mcap") -> None:
    """Bags of successes and failures in turn, with their contract beside them."""
    folder = Path(out)
    folder.mkdir(parents=True)
    for seed in range(episodes):
        write_bag(folder / f"bag_{seed}", make_episode(seed, hesitates=seed % 2 == 1), ACTION, OBSERVATION, storage)
    write_contract(folder.with_suffix(".yaml"), ACTION, OBSERVATION)


def write_bag(path: Path, episode: Episode, actions: ActionSpec, observations: ObservationSpec, storage: str = "mcap") -> None:
    """One episode as one bag."""
    period, commands = round(10**9 / observations.control_hz), actions.to_units(episode.actions)
    rng = np.random.default_rng(0)
    with Writer(path, version=9, storage_plugin=PLUGINS[storage]) as writer:
        connections = dict[str, Any]()

        def send(topic: str, kind: str, at: int, **fields: Any) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], at + 3 * MILLISECOND, STORE.serialize_cdr(TYPES[kind](**fields), kind))

        send("/task", "std_msgs/msg/String", START - 10 * MILLISECOND, data=episode.instruction)
        for t in range(len(episode) + 1):
            at = START + t * period
            for name, images in episode.images.items():
                send(f"/{name}/image_raw", "sensor_msgs/msg/Image", at, header=_header(at), **_image(images[t]))
            order = rng.permutation(len(observations.proprio_names))
            send(
                "/joint_states",
                "sensor_msgs/msg/JointState",
                at,
                header=_header(at),
                name=[observations.proprio_names[i] for i in order],
                position=episode.proprio[t, order].astype(np.float64),
                velocity=np.zeros(0),
                effort=np.zeros(0),
            )
            for i, name in enumerate(actions.names if t < len(episode) else ()):
                layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
                value = np.array([commands[t, i]], np.float64)
                send(f"/commands/{name}", "std_msgs/msg/Float64MultiArray", at + 20 * MILLISECOND, layout=layout, data=value)
        word = "success" if episode.success else "timeout" if episode.truncated[-1] else "failure"
        send("/outcome", "std_msgs/msg/String", START + len(episode) * period + period // 2, data=word)


def write_contract(path: Path, actions: ActionSpec, observations: ObservationSpec) -> None:
    path.write_text(yaml.safe_dump(contract(actions, observations), sort_keys=False))


def _header(at: int) -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="base")


def _image(pixels: np.ndarray) -> dict[str, Any]:
    height, width, _ = pixels.shape
    size = {"height": height, "width": width, "step": 3 * width}
    return {**size, "encoding": "rgb8", "is_bigendian": 0, "data": pixels.reshape(-1)}


if __name__ == "__main__":
    sys.exit(command_line.run(main))

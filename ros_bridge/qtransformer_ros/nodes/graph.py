"""Prints, as one line of JSON, who publishes and who listens on a contract's topics, and how large their messages are.

python -m qtransformer_ros.nodes.graph contract.yaml
"""

import json
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from qtransformer_datasets.rosbag.message_types import CAMERA_TYPES, VECTOR_TYPES
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.nodes.messages import message_class

DISCOVERY_S = 5.0
"""Time that discovery on one machine may take [s]."""


def main() -> None:
    contract = TopicContract.load(sys.argv[1]).resolved()
    rclpy.init()
    node = Node("qtransformer_doctor")
    sizes: dict[str, int] = {}
    topics = list(described(contract))
    for topic in topics:
        if topic["kind"] == "camera":
            node.create_subscription(
                message_class(topic["ros_type"]), topic["topic"], Sizes(sizes, topic["topic"]), qos_profile_sensor_data, raw=True
            )
    until = monotonic() + DISCOVERY_S
    while monotonic() < until:
        rclpy.spin_once(node, timeout_sec=0.1)
    for topic in topics:
        listening = topic["kind"] == "camera"  # we ourselves
        topic["publishers"] = node.count_publishers(topic["topic"])
        topic["subscribers"] = node.count_subscribers(topic["topic"]) - listening
        topic["bytes"] = sizes.get(topic["topic"], 0)
    print(json.dumps(topics))
    node.destroy_node()
    rclpy.try_shutdown()


class Sizes:
    """Notes the size of the serialised messages of a topic."""

    def __init__(self, sizes: dict[str, int], topic: str) -> None:
        self.sizes, self.topic = sizes, topic

    def __call__(self, message: bytes) -> None:
        self.sizes[self.topic] = len(message)


def described(contract: TopicContract) -> Iterator[dict[str, Any]]:
    types = CAMERA_TYPES | VECTOR_TYPES
    groups = (("camera", contract.cameras.values()), ("proprio", contract.proprio), ("command", contract.commanded))
    for kind, sources in groups:
        for source in sources:
            yield {"topic": source.topic, "kind": kind, "type": source.type, "ros_type": types[source.type].name}


if __name__ == "__main__":
    main()

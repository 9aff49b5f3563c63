"""Large images over the transport profile that the project ships, and why it is needed."""

import re
from pathlib import Path

import pytest

from tests.ros_nodes.harness import ROOT, Graph

PROFILE = ROOT / "launch" / "fastdds_large_images.xml"
VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
COUNT, HZ = 300, 30

TALKER = f"""
import array, time, rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

def main():
    rclpy.init()
    node = Node("talker")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    data = array.array("B", bytes(640 * 480 * 3))
    image = Image(height=480, width=640, encoding="rgb8", step=640 * 3, data=data)
    begin = time.monotonic()
    for i in range({COUNT}):
        image.header.frame_id = str(i)
        publisher.publish(image)
        time.sleep(max(0.0, begin + (i + 1) / {HZ} - time.monotonic()))
    time.sleep(1.0)
"""
LISTENER = """
import time, rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

def main():
    rclpy.init()
    node, heard = Node("listener"), set()
    # Deeper than a policy's: what the transport loses is the question, not what a listener that is late leaves in its queue.
    late = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, "image", lambda m: heard.add(m.header.frame_id), late)
    while not heard:
        rclpy.spin_once(node, timeout_sec=0.1)
    last = time.monotonic()
    before = 0
    while time.monotonic() - last < 2.0:
        rclpy.spin_once(node, timeout_sec=0.1)
        if len(heard) > before:
            before, last = len(heard), time.monotonic()
    print(f"heard={len(heard)}")
"""


@pytest.fixture
def programs(graph: Graph, tmp_path: Path) -> Graph:
    (tmp_path / "talker_node.py").write_text(TALKER)
    (tmp_path / "listener_node.py").write_text(LISTENER)
    graph.env["PYTHONPATH"] += f":{tmp_path}"
    return graph


def heard(graph: Graph, env: dict[str, str]) -> int:
    """Images of `COUNT` that arrive, sent best-effort between two processes."""
    listener = graph.start("listener_node", env=env)
    talker = graph.start("talker_node", env=env)
    assert talker.wait(60.0) == 0, talker.output
    assert listener.wait(30.0) == 0, listener.output
    found = re.search(r"heard=(\d+)", listener.output)
    assert found, listener.output
    return int(found[1])


def test_images_of_640_by_480_arrive_with_our_profile(programs: Graph) -> None:
    assert heard(programs, dict.fromkeys(VARIABLES, str(PROFILE))) >= 0.99 * COUNT


def test_the_profile_is_what_makes_them_arrive(programs: Graph) -> None:
    """Should this fail because all arrive, the profile is no longer needed."""
    assert heard(programs, dict.fromkeys(VARIABLES, "")) < 0.9 * COUNT

"""What a process that stops at the wrong moment does to its neighbours: how long a bystander's publish() takes then.

    .venv-ros/bin/python benchmarks/frozen_neighbour.py                                       # Fast DDS's own choice: shared memory
    FASTDDS_BUILTIN_TRANSPORTS=UDPv4 .venv-ros/bin/python benchmarks/frozen_neighbour.py      # no memory shared, no lock to stop in

Busy publishers are frozen (SIGSTOP), three at once, while they send to the listener that a bystander sends to as well. For a
machine with nothing else to do: publishers that wait for their turn are rarely frozen within a lock.
"""

import os
import signal
import subprocess
import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState

TIMES, BUSY, WATCH_S, PERIOD_S, SLOW_S = 40, 3, 2.0, 0.01, 0.5
TOPIC = "joint_states"
MESSAGE = JointState(name=[f"joint_{i}" for i in range(7)], position=[0.0] * 7)


def listen(node: Node) -> None:
    node.create_subscription(JointState, TOPIC, lambda _: None, 10)
    rclpy.spin(node)


def chatter(node: Node) -> None:
    publisher = node.create_publisher(JointState, TOPIC, 10)
    while True:
        publisher.publish(MESSAGE)


def longest_publish(publisher: Publisher, seconds: float) -> float:
    """Publish for a while. Returns how long the longest call took [s]."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        publisher.publish(MESSAGE)
        longest = max(longest, time.monotonic() - begin)
        time.sleep(PERIOD_S)
    return longest


def stand_by(node: Node) -> None:
    """Freeze neighbours again and again, and say what it did to this process."""
    listener = start("listen")
    publisher = node.create_publisher(JointState, TOPIC, 10)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    longest = []
    for _ in range(TIMES):
        neighbours = [start("chatter") for _ in range(BUSY)]
        longest_publish(publisher, WATCH_S)  # until the neighbours have found the listener, too
        for neighbour in neighbours:
            os.kill(neighbour.pid, signal.SIGSTOP)
        longest.append(longest_publish(publisher, WATCH_S))
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    listener.kill()
    slow = [seconds for seconds in longest if seconds > SLOW_S]
    transports = os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", "default")
    print(f"transports {transports}: after {len(slow)} of {TIMES} freezes a bystander was held up, at most {max(longest):.2f} s")


def start(part: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, part])


def main() -> None:
    part = sys.argv[1] if len(sys.argv) > 1 else "stand_by"
    rclpy.init()
    {"listen": listen, "chatter": chatter, "stand_by": stand_by}[part](Node(f"{part}_{os.getpid()}"))


if __name__ == "__main__":
    main()

"""From image to command over DDS: latency, jitter, memory and missed deadlines of `qtransformer-policy` at 10 Hz.

    .venv-ros/bin/python benchmarks/bench_ros.py run=runs/demo data=data/demo.hdf5 seconds=600

A robot is played from a recording, so that no renderer competes for the cores: a camera at 10 Hz, joints and tool at 100 Hz. The
policy is the run's own, saved again for 10 Hz; it decides when an image comes. Latency is from just before an image is published
to when the first velocity of its decision has arrived here, in one clock. The bare model is timed first, in a process of its own,
on the same images.
"""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import command_line
from qtransformer.checkpoint import read_checkpoint, resolve_checkpoint, write_checkpoint
from qtransformer.policy import Policy
from qtransformer.types import Episode
from qtransformer_datasets import open_episodes

HZ = 10.0
CONTRACT = Path(__file__).parents[1] / "datasets" / "contracts" / "simulated_kuka.yaml"
LATENCY_BAR_MS, JITTER_BAR_MS = 30.0, 10.0
WARM_UP = 20
"""Decisions left out at the beginning: discovery, caches."""
ORDER_S = 0.005
"""How much later a message may arrive than one that was published just after it on another topic [s]."""
STATE_HZ = 100.0
MEMORY_BAR_MB = 5.0
"""Growth after the first minute that a run of ten minutes may show: less than a byte a microsecond, more than noise."""


@dataclass(slots=True)
class Seen:
    """What the played robot notes, by monotonic time [s]."""

    sent: dict[int, float] = field(default_factory=dict)
    """Stamp of an image [ns] to when it was published."""
    consumed: list[int] = field(default_factory=list)
    """Stamp of the image of every decision."""
    switched: list[float] = field(default_factory=list)
    """When every command to the gripper arrived: one for each decision, sent just before its motion."""
    moved: list[float] = field(default_factory=list)
    """When every velocity arrived: the first of a decision, and its repetitions."""
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    """(when, anonymous memory of the policy's process)."""
    status: dict[str, str] = field(default_factory=dict)


def main(run: str = "runs/demo", data: str = "data/demo.hdf5", seconds: float = 60.0) -> int:
    episode = next(e for e in open_episodes(data) if e.success and len(e) >= 8)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = at_ten_hertz(run, Path(folder) / "checkpoints")
        bare = bare_model(checkpoint, episode)
        seen = play(checkpoint, contract_at_ten_hertz(Path(folder)), episode, seconds, Path(folder))
    return report(bare, seen, seconds)


def at_ten_hertz(run: str, root: Path) -> Path:
    """The same policy, for another rate: the contract must match it."""
    policy = Policy.from_checkpoint(run, "cpu")
    artefact = read_checkpoint(resolve_checkpoint(run), torch.device("cpu"))
    changed = replace(artefact, observation_spec=replace(policy.observation_spec, control_hz=HZ))
    return write_checkpoint(root, 1, changed, {}, {})


def contract_at_ten_hertz(folder: Path) -> Path:
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(CONTRACT.read_text()), "control_hz": HZ}))
    return path


def bare_model(checkpoint: Path, episode: Episode) -> np.ndarray:
    """Seconds of every decision at the same rate, one thread, nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_time_model, (checkpoint, episode))


def _time_model(checkpoint: Path, episode: Episode) -> np.ndarray:
    torch.set_num_threads(1)
    policy, times = Policy.from_checkpoint(checkpoint, "cpu"), []
    for i in range(200):
        t = i % len(episode)
        images = {name: rows[t] for name, rows in episode.images.items()}
        began = time.perf_counter()
        policy.act({"images": images, "proprio": episode.proprio[t], "instruction": episode.instruction})
        times.append(time.perf_counter() - began)
        time.sleep(max(0.0, 1 / HZ - times[-1]) / 4)  # paced: a loop without rest would keep the caches warmer than a robot does
    return np.array(times[WARM_UP:])


def play(checkpoint: Path, contract: Path, episode: Episode, seconds: float, folder: Path) -> Seen:
    """Run the node against a recording."""
    os.environ |= {"ROS_DOMAIN_ID": "91", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    parameters = {
        "checkpoint": str(checkpoint),
        "contract": str(contract),
        "output": "as_contract",
        "tick_on": "image",
        "max_step_m": 0.1,
        "max_step_rad": 0.5,
    }
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump({"qtransformer_policy": {"ros__parameters": parameters}}))
    start = "import sys; from qtransformer_ros.nodes.policy_node import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", start, "--ros-args", "--params-file", str(path), "--log-level", "warn"])
    try:
        return _converse(process.pid, episode, seconds)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def _converse(pid: int, episode: Episode, seconds: float) -> Seen:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from geometry_msgs.msg import TwistStamped
    from lifecycle_msgs.srv import ChangeState
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Bool, Float64MultiArray
    from std_srvs.srv import Trigger

    rclpy.init()
    node, seen = rclpy.create_node("played_robot"), Seen()
    camera = "/camera/wrist/image_raw"

    def consumed(message: Any) -> None:
        stamps = {v.key: v.value for v in message.status[0].values}
        seen.consumed.append(int(stamps[camera]))

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(DiagnosticArray, "/qtransformer_policy/consumed", consumed, 100)
    node.create_subscription(TwistStamped, "/servo_node/delta_twist_cmds", lambda _: seen.moved.append(time.monotonic()), 100)
    node.create_subscription(
        Float64MultiArray, "/gripper_controller/commands", lambda _: seen.switched.append(time.monotonic()), 100
    )
    node.create_subscription(Bool, "/policy/terminate", lambda _: None, 10)

    def status(message: Any) -> None:
        seen.status = {"state": message.message, **{v.key: v.value for v in message.values}}

    node.create_subscription(DiagnosticStatus, "/qtransformer_policy/status", status, latched)
    node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: status(next(s for s in m.status if "policy" in s.name)), 10)
    robot = PlayedRobot(node, episode, seen, Image, JointState)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    roles = ((STATE_HZ, robot.measure), (HZ, robot.look))
    playing = [threading.Thread(target=robot.play, args=role, daemon=True) for role in roles]
    for thread in playing:
        thread.start()

    def call(kind: Any, name: str, request: Any) -> Any:
        client = node.create_client(kind, name)
        assert client.wait_for_service(60.0), f"{name} is not there"
        future = client.call_async(request)
        while not future.done():
            time.sleep(0.01)
        return future.result()

    for label in ("configure", "activate"):
        request = ChangeState.Request()
        request.transition.label = label
        assert call(ChangeState, "/qtransformer_policy/change_state", request).success, f"{label}: {seen.status}"
    answer = call(Trigger, "/qtransformer_policy/start", Trigger.Request())
    assert answer.success, answer.message
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seen.memory_mb.append((time.monotonic(), anonymous_mb(pid)))
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))
    robot.stop.set()
    for thread in playing:
        thread.join()
    time.sleep(1.5)  # the last command and one more status
    executor.shutdown()
    rclpy.shutdown()
    return seen


class PlayedRobot:
    """Publishes a recording, over and over."""

    def __init__(self, node: Any, episode: Episode, seen: Seen, image: Any, joint_state: Any) -> None:
        self.node, self.episode, self.seen, self.image, self.joint_state = node, episode, seen, image, joint_state
        tool = yaml.safe_load(CONTRACT.read_text())["proprio"][0]["joints"]
        self.names = {"tool_state": tool, "joint_states": [f"joint_{i}" for i in range(1, 8)]}
        self.publishers = {topic: node.create_publisher(joint_state, topic, 10) for topic in self.names}
        self.camera = node.create_publisher(image, "camera/wrist/image_raw", 5)
        self.stop = threading.Event()

    def play(self, hz: float, publish: Callable[[int], None]) -> None:
        """Publish `hz` times a second what the recording shows then."""
        began, i = time.monotonic(), 0
        while not self.stop.is_set():
            publish(int(i / hz * HZ) % (len(self.episode) + 1))
            i += 1
            time.sleep(max(0.0, began + i / hz - time.monotonic()))

    def measure(self, t: int) -> None:
        """Joints and tool of frame t."""
        stamp, values = self.node.get_clock().now().to_msg(), self.episode.proprio[t].astype(np.float64)
        parts = {"tool_state": values[:8], "joint_states": values[8:]}
        for topic, names in self.names.items():
            message = self.joint_state(name=names, position=parts[topic].tolist())
            message.header.stamp = stamp
            self.publishers[topic].publish(message)

    def look(self, t: int) -> None:
        """The image of frame t."""
        now = self.node.get_clock().now()
        pixels = self.episode.images["wrist"][t]
        message = self.image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", step=pixels.shape[1] * 3)
        message.header.stamp = now.to_msg()
        message.data.frombytes(pixels.tobytes())
        self.seen.sent[now.nanoseconds] = time.monotonic()
        self.camera.publish(message)


def anonymous_mb(pid: int) -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def first_motions(seen: Seen) -> np.ndarray:
    """When the first velocity of every decision arrived; it may be a little before the switch, for topics keep no order."""
    moved = np.array(seen.moved)
    places = np.searchsorted(moved, np.array(seen.switched) - ORDER_S)
    return moved[places[places < len(moved)]]


def report(bare: np.ndarray, seen: Seen, seconds: float) -> int:
    if len(seen.consumed) <= WARM_UP:
        print(f"{len(seen.consumed)} decisions: {seen.status}")
        return 1
    arrived = first_motions(seen)[WARM_UP : len(seen.consumed)]
    sent = np.array([seen.sent[stamp] for stamp in seen.consumed[WARM_UP : WARM_UP + len(arrived)]])
    latency, intervals = (arrived - sent) * 1e3, np.diff(arrived) * 1e3
    jitter = np.abs(intervals - 1e3 / HZ)
    first = [mb for when, mb in seen.memory_mb if when - seen.memory_mb[0][0] <= min(60.0, seconds / 4)]
    growth = float(np.median([mb for _, mb in seen.memory_mb[-10:]]) - max(first))
    begun = [s for s in seen.sent if s >= seen.consumed[0]]
    unanswered = len(begun) - len(seen.consumed)
    counted = sum(int(seen.status.get(k, "0")) for k in ("misses", "skewed", "dropped_answers"))
    bare_p99 = float(np.quantile(bare, 0.99)) * 1e3
    rows = {
        "bare model p50, p99 [ms]": (float(np.median(bare)) * 1e3, bare_p99),
        "image to command p50, p99, max [ms]": (*np.quantile(latency, [0.5, 0.99]), latency.max()),
        "beyond the bare model, p99 [ms]": (float(np.quantile(latency, 0.99)) - bare_p99,),
        "command interval jitter p50, p99, max [ms]": (*np.quantile(jitter, [0.5, 0.99]), jitter.max()),
        "memory growth after the first minute [MB]": (growth,),
    }
    for name, numbers in rows.items():
        print(f"{name:48}" + "  ".join(f"{n:8.2f}" for n in numbers))
    answers = f"{len(begun)} images, {len(seen.consumed)} decisions, {len(seen.switched)} commands"
    print(f"{answers}; {unanswered} unanswered, {counted} counted")
    print(json.dumps(seen.status))
    holds = {
        f"p99 <= bare p99 + {LATENCY_BAR_MS:g} ms": float(np.quantile(latency, 0.99)) <= bare_p99 + LATENCY_BAR_MS,
        f"jitter p99 <= {JITTER_BAR_MS:g} ms": float(np.quantile(jitter, 0.99)) <= JITTER_BAR_MS,
        "every unanswered image is a counted miss": unanswered <= counted + 1,  # the last may be under way
        "memory does not grow": growth <= MEMORY_BAR_MB,
    }
    for name, is_met in holds.items():
        print(f"{'met' if is_met else 'MISSED':8}{name}")
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main))

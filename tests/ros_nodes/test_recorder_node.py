"""The recorder as a process, beside a robot and a policy that are played by another: what was sent is in the bag."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosbags.rosbag2 import Reader
from std_msgs.msg import String
from std_srvs.srv import Trigger

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.storage import open_bag
from qtransformer_ros.nodes.messages import UNHEARD
from tests.ros_nodes.harness import LATCHED, Graph, NodeProcess

STEPS = 12
CONTRACT = """
control_hz: 20
tolerance_s: 0.2
cameras:
  wrist: {topic: camera, size: [12, 16]}
proprio:
  - {topic: joint_states, type: JointState, joints: [a, b], units: rad}
action:
  - {topic: twist, type: TwistStamped, values: [vx, wz], names: [dx, dyaw], per_step: true, low: [-1, -1], high: [1, 1]}
  - {topic: gripper, type: Float64MultiArray, values: [gripper], units: "1", low: 0, high: 1, discrete: 2}
instruction: {topic: task}
episodes:
  start: {topic: event, words: [start]}
  stop: {topic: event, words: [success, failure, timeout]}
  discard: {topic: event, words: [discard]}
outcome: {topic: event}
ticks: {topic: qtransformer_policy/consumed}
"""
PLAYER = """
import array, sys
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, Header, String
from std_srvs.srv import Trigger
from qtransformer_datasets.rosbag.ros_messages import encode_observation, stamp_ns
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.nodes.messages import time_message
from qtransformer_ros.nodes.parameters import flag, integer, text
from qtransformer_ros.nodes.qos import EVERY, IMAGE, LATCHED
from qtransformer_ros.nodes.running import run

class Player(Node):
    # Camera at 30 Hz, joints at 100 Hz, decisions at 20 Hz on the newest of each.
    def __init__(self):
        super().__init__("player")
        self.out = text(self, "out", "", "where to").value
        self.silent = text(self, "silent", "", "topic not published").value
        self.end = text(self, "end", "success", "how it ends").value
        self.steps = integer(self, "steps", 12, "decisions").value
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera = best_effort if flag(self, "best_effort", False, "camera").value else IMAGE
        self.contract = TopicContract.load(text(self, "contract", "", "file").value).resolved()
        kinds = {"camera": (Image, camera), "joint_states": (JointState, EVERY), "twist": (TwistStamped, EVERY),
                 "gripper": (Float64MultiArray, EVERY), "event": (String, EVERY), "task": (String, LATCHED),
                 "extra": (String, EVERY), "qtransformer_policy/consumed": (DiagnosticArray, EVERY)}
        self.publishers_ = {t: self.create_publisher(*k[:1], t, k[1]) for t, k in kinds.items() if t != self.silent}
        self.counts = dict.fromkeys(self.publishers_, 0)
        self.latest, self.seen, self.actions, self.timers_ = {}, [], [], []
        self.rng = np.random.default_rng(0)
        self.send("task", String(data="pick up the nut"))
        self.create_service(Trigger, "~/go", self.go)

    def send(self, topic, message):
        if topic in self.publishers_:
            self.publishers_[topic].publish(message)
            self.counts[topic] += 1
        self.latest["/" + topic] = message

    def header(self):
        return Header(stamp=self.get_clock().now().to_msg())

    def go(self, request, response):
        self.send("event", String(data="start"))
        self.send("extra", String(data="x"))
        self.timers_ = [self.create_timer(1 / hz, f) for hz, f in ((30, self.camera), (100, self.joints), (20, self.decide))]
        response.success = True
        return response

    def camera(self):
        pixels = array.array("B", self.rng.integers(0, 256, 24 * 32 * 3, np.uint8).tobytes())
        self.send("camera", Image(header=self.header(), height=24, width=32, step=96, encoding="bgr8", data=pixels))

    def joints(self):
        self.send("joint_states", JointState(header=self.header(), name=["b", "a"], position=self.rng.normal(size=2).tolist()))

    def decide(self):
        if not {"/camera", "/joint_states"} <= self.latest.keys():
            return
        used = {t: self.latest[t] for t in ("/camera", "/joint_states")}
        values = [KeyValue(key=t, value=str(stamp_ns(m.header.stamp))) for t, m in used.items()]
        self.send("qtransformer_policy/consumed", DiagnosticArray(header=self.header(), status=[DiagnosticStatus(values=values)]))
        live = encode_observation(self.contract, used)
        self.seen.append((live["images"]["wrist"], live["proprio"]))
        twist = TwistStamped(header=self.header())
        twist.twist.linear.x, twist.twist.angular.z = self.rng.uniform(-10, 10, 2).tolist()
        self.send("twist", twist)
        self.send("gripper", Float64MultiArray(data=[float(len(self.seen) % 2)]))
        self.actions.append([twist.twist.linear.x / 20, twist.twist.angular.z / 20, float(len(self.seen) % 2)])
        if len(self.seen) == self.steps:
            self.timers_[2].cancel()
            self.timers_.append(self.create_timer(0.1, self.finish))

    def finish(self):
        for timer in self.timers_:
            timer.cancel()
        np.savez(self.out + ".tmp.npz", images=np.stack([i for i, _ in self.seen]), proprio=np.stack([p for _, p in self.seen]),
                 actions=self.actions, **{"count " + t: n for t, n in self.counts.items()})
        import os
        os.replace(self.out + ".tmp.npz", self.out)
        self.send("event", String(data=self.end))

    def on_stop(self):
        pass

def main():
    return run(Player)
"""


class Stage:
    """Recorder and player, and what they say."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        self.graph, self.folder = graph, folder
        self.bags, self.out, self.contract = folder / "bags", folder / "seen.npz", folder / "contract.yaml"
        self.contract.write_text(CONTRACT)
        (folder / "player_node.py").write_text(PLAYER)
        graph.env["PYTHONPATH"] += f":{folder}"
        self.statuses = graph.probe.listen("qtransformer_recorder/status", DiagnosticStatus, LATCHED)

    def record(self, **parameters: Any) -> NodeProcess:
        files = {"contract": str(self.contract), "folder": str(self.bags)}
        return self.graph.start("qtransformer_ros.nodes.recorder_node", topics=["extra"], **files, **parameters)

    def play(self, **parameters: Any) -> NodeProcess:
        """Start the player; it plays once all it publishes is heard, as it wants to be heard."""
        player = self.graph.start("player_node", contract=str(self.contract), out=str(self.out), **parameters)
        node, silent = self.graph.probe.node, parameters.get("silent")
        topics = [t for t in ("camera", "joint_states", "twist", "gripper", "event", "task", "extra") if t != silent]

        def heard() -> bool:
            pairs = [(node.get_publishers_info_by_topic(t), node.get_subscriptions_info_by_topic(t)) for t in topics]
            return all(p and s and p[0].qos_profile.reliability == s[0].qos_profile.reliability for p, s in pairs)

        self.graph.probe.wait_for(heard, "all topics to be heard")
        return player

    def go(self) -> None:
        assert self.graph.probe.trigger("player/go").success

    def wait_for_status(self, text: str) -> DiagnosticStatus:
        found = lambda: next((s for s in self.statuses if text in s.message), None)  # noqa: E731
        return self.graph.probe.wait_for(found, f"status '{text}'")

    def trigger(self, name: str) -> Any:
        return self.graph.probe.trigger(f"qtransformer_recorder/{name}")


@pytest.fixture
def stage(graph: Graph, tmp_path: Path) -> Stage:
    return Stage(graph, tmp_path)


def counts(path: Path) -> dict[str, int]:
    with Reader(path) as reader:
        return {c.topic: c.msgcount for c in reader.connections}


@pytest.mark.parametrize("best_effort", [False, True])
def test_what_was_sent_and_seen_is_in_the_bag(stage: Stage, best_effort: bool) -> None:
    """By request, in free running: counts, label, audit, and the policy's observations bit for bit."""
    recorder = stage.record(seed=7, checkpoint_sha256="abc")
    stage.play(best_effort=best_effort)
    stage.wait_for_status("idle")
    assert stage.trigger("start").message == "episode_0001"
    assert not stage.trigger("start").success
    stage.go()
    stage.graph.probe.wait_for(stage.out.exists, "the episode's end")
    answer = stage.trigger("stop")
    assert answer.success, answer.message
    assert not stage.trigger("stop").success
    seen = np.load(stage.out)
    sent = {f"/{name[6:]}": int(seen[name]) for name in seen.files if name.startswith("count ")}
    sent["/event"] += 1
    assert counts(stage.bags / "episode_0001") == sent
    source = BagEpisodes(stage.bags, contract=stage.contract)
    (episode,) = source
    assert len(episode) == STEPS
    assert episode.images["wrist"][:STEPS].tobytes() == seen["images"].tobytes()
    assert episode.proprio[:STEPS].tobytes() == seen["proprio"].tobytes()
    assert np.array_equal(episode.actions, source.action_spec.to_scaled(seen["actions"]))
    assert (episode.success, episode.instruction) == (True, "pick up the nut")
    label = open_bag(stage.bags / "episode_0001").custom_data
    with Reader(stage.bags / "episode_0001") as reader:
        hashes = {c.msgtype: c.digest for c in reader.connections}
    assert label["contract"] == CONTRACT
    wanted = {"seed": "7", "outcome": "success", "task": "pick up the nut", "checkpoint_sha256": "abc", "audit": "ok"}
    assert wanted.items() <= label.items()
    assert json.loads(label["versions"])["ros"] in ("kilted", "jazzy")
    (info,) = stage.graph.probe.node.get_publishers_info_by_topic("camera")
    assert hashes["sensor_msgs/msg/Image"] == str(info.topic_type_hash)
    audit = json.loads((stage.bags / "episode_0001.audit.json").read_text())
    assert (audit["ok"], audit["steps"], audit["outcome"], audit["counts"]) == (True, STEPS, "success", sent)
    assert recorder.stop() == 0, recorder.output


def test_events_begin_and_end_episodes_by_themselves(stage: Stage) -> None:
    recorder = stage.record(auto=True)
    stage.play(end="timeout")
    stage.go()
    stage.wait_for_status("episode_0001: 12 steps, timeout")
    event = stage.graph.probe.publisher("event", String)
    event.publish(String(data="start"))
    stage.wait_for_status("recording episode_0002")
    event.publish(String(data="discard"))
    stage.graph.probe.wait_for(lambda: "episode_0002: discarded" in recorder.output, "the discard")
    assert sorted(p.name for p in stage.bags.iterdir()) == ["episode_0001", "episode_0001.audit.json"]
    (episode,) = BagEpisodes(stage.bags, contract=stage.contract)
    assert (len(episode), bool(episode.truncated[-1])) == (STEPS, True)
    assert recorder.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_an_episode_closes_the_bag(stage: Stage, number: signal.Signals) -> None:
    recorder = stage.record(auto=True)
    stage.play(steps=10_000)
    stage.go()
    stage.wait_for_status("recording episode_0001")
    stage.graph.probe.spin_for(0.5)
    assert recorder.stop(number) == 0
    audit = json.loads((stage.bags / "episode_0001.audit.json").read_text())
    assert not audit["ok"]
    assert audit["problems"] == ["nothing said how it ended"]
    (episode,) = BagEpisodes(stage.bags, contract=stage.contract, outcome="timeout")
    assert len(episode) > 3


def test_what_a_killed_recorder_leaves_is_refused_by_name_and_can_be_salvaged(stage: Stage) -> None:
    recorder = stage.record(auto=True)
    stage.play(steps=10_000)
    stage.go()
    stage.wait_for_status("recording episode_0001")
    stage.graph.probe.wait_for(lambda: _size(stage.bags) > 60_000, "a flush")
    recorder.kill()
    assert [p.name for p in stage.bags.iterdir()] == ["episode_0001.partial"]
    with pytest.raises(DatasetError, match=r"episode_0001\.partial: has no metadata.yaml"):
        BagEpisodes(stage.bags, contract=stage.contract)
    (episode,) = BagEpisodes(stage.bags, contract=stage.contract, partial=True)
    assert len(episode) >= 3


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*.mcap"))


def test_a_topic_that_is_missing_fails_the_audit_and_says_so(stage: Stage) -> None:
    recorder = stage.record(auto=True)
    stage.play(silent="joint_states")
    stage.go()
    stage.graph.probe.spin_for(0.5)
    stage.graph.probe.publisher("event", String).publish(String(data="failure"))
    status = stage.wait_for_status("no message on /joint_states")
    assert status.level == DiagnosticStatus.ERROR
    assert "no message on /joint_states" in recorder.output
    label = open_bag(stage.bags / "episode_0001").custom_data
    assert label["audit"].startswith("failed: no message on /joint_states")


def test_the_status_names_topics_that_nobody_publishes(stage: Stage) -> None:
    stage.record()

    def unheard() -> set[str]:
        return {topic for v in stage.statuses[-1:] for pair in v.values if pair.key == UNHEARD for topic in pair.value.split()}

    stage.graph.probe.wait_for(lambda: {"/camera", "/twist", "/event"} <= unheard(), "all to be named")
    stage.play(silent="twist")
    stage.graph.probe.wait_for(lambda: unheard() == {"/twist"}, "the one that is left")


def test_a_folder_that_cannot_be_written_is_one_sentence(stage: Stage) -> None:
    stage.bags.write_text("a file")
    recorder = stage.record()
    assert recorder.wait() == 1
    assert "bags cannot be written there" in recorder.output
    assert "Traceback" not in recorder.output


def test_a_contract_that_is_missing_is_one_sentence(stage: Stage) -> None:
    stage.contract.unlink()
    recorder = stage.record()
    assert recorder.wait() == 1
    assert "cannot be read" in recorder.output
    assert "Traceback" not in recorder.output


def test_services_exist_from_the_start(stage: Stage) -> None:
    stage.record()
    client = stage.graph.probe.node.create_client(Trigger, "qtransformer_recorder/discard")
    stage.graph.probe.wait_for(client.service_is_ready, "the service")
    assert not stage.trigger("discard").success
    assert not stage.trigger("stop").success

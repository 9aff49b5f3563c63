"""The counting of episodes as a process, beside a policy and a simulator that are played by another."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ros_nodes.harness import Graph, NodeProcess

CONTRACT = """
control_hz: 20
tolerance_s: 0.3
proprio: [{topic: tool_state, type: JointState, joints: [x], units: m}]
action: [{topic: command, type: Float64, values: [dx], units: m, low: -1, high: 1}]
episodes: {start: {topic: episode/event, words: [start]}}
outcome: {topic: episode/event}
"""
PLAYERS = """
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger
from qtransformer_ros.nodes.parameters import flag, integer, number
from qtransformer_ros.nodes.qos import EVERY, LATCHED
from qtransformer_ros.nodes.running import run

class Policy(LifecycleNode):
    def __init__(self):
        super().__init__("qtransformer_policy")
        self.refuses = flag(self, "refuses", False, "to configure")
        self.fault_at = integer(self, "fault_at", -1, "reset at which it fails")
        self.status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self.resets = 0
        for name, state in (("start", "RUNNING"), ("stop", "PAUSED"), ("reset", "PAUSED")):
            self.create_service(Trigger, f"~/{name}", lambda q, r, state=state, name=name: self.serve(name, state, r))
    def say(self, state, reason=""):
        self.state = state
        self.status.publish(DiagnosticStatus(message=reason or state, values=[KeyValue(key="state", value=state)]))
    def serve(self, name, state, response):
        print("policy", name, flush=True)
        self.resets += name == "reset"
        failed = name == "start" and self.resets - 1 == self.fault_at.value
        self.say("FAULT" if failed else state, "the network gave NaN" if failed else "")
        return response
    def on_configure(self, state):
        self.say("UNCONFIGURED", "cannot configure: no checkpoint" if self.refuses.value else "")
        return TransitionCallbackReturn.FAILURE if self.refuses.value else TransitionCallbackReturn.SUCCESS
    def on_activate(self, state):
        self.say("PAUSED")
        return super().on_activate(state)
    def on_stop(self):
        pass

class Sim(Node):
    def __init__(self):
        super().__init__("qtransformer_sim")
        self.seed = integer(self, "seed", -1, "seed")
        self.mute = integer(self, "mute", -1, "seed whose episode does not end")
        self.event = self.create_publisher(String, "episode/event", EVERY)
        self.done = self.create_publisher(Bool, "~/done", EVERY)
        self.state = self.create_publisher(JointState, "tool_state", EVERY)
        self.silent = integer(self, "silent_resets", 0, "episodes at first whose commands are lost").value
        late = number(self, "late_s", 0.0, "when commands are first published [s]", low=0, high=60).value
        self.command = None if late else self.create_publisher(Float64, "command", EVERY)
        self.late = self.create_timer(late, self.publish_late) if late else None
        self.create_service(Trigger, "~/reset", self.reset)
        self.timer = None
    def publish_late(self):
        self.destroy_timer(self.late)
        self.command = self.create_publisher(Float64, "command", EVERY)
    def reset(self, request, response):
        print("sim reset", self.seed.value, flush=True)
        self.event.publish(String(data="start"))
        self.silent -= 1
        self.step, self.timer = 0, self.create_timer(0.05, self.tick)
        response.success = True
        return response
    def tick(self):
        self.state.publish(JointState(header=self.header(), name=["x"], position=[0.1]))
        if self.command and self.silent < 0:
            self.command.publish(Float64(data=0.5))
        self.step += 1
        ends = self.step == 4 and self.seed.value != self.mute.value
        self.done.publish(Bool(data=ends))
        if self.step == 4:
            self.destroy_timer(self.timer)
        if ends:
            self.event.publish(String(data="success" if self.seed.value % 2 else "failure"))
    def header(self):
        message = JointState().header
        message.stamp = self.get_clock().now().to_msg()
        return message
    def on_stop(self):
        pass

def policy():
    return run(Policy)

def main():
    return run(Sim)
"""


@pytest.fixture
def players(graph: Graph, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "players_node.py").write_text(PLAYERS)
    (tmp_path / "policy_player_node.py").write_text("from players_node import policy as main")
    (tmp_path / "contract.yaml").write_text(CONTRACT)
    graph.env["PYTHONPATH"] += f":{tmp_path}"
    return {"contract": str(tmp_path / "contract.yaml"), "folder": str(tmp_path / "out")}


def run_episodes(graph: Graph, players: dict[str, Any], **parameters: Any) -> NodeProcess:
    node = graph.start("qtransformer_ros.nodes.episodes_node", **players, **parameters)
    node.wait(60.0)
    return node


def results(players: dict[str, Any]) -> list[tuple[int, str, int]]:
    data = json.loads((Path(players["folder"]) / "episodes.json").read_text())
    return [(e["seed"], e["outcome"], e["steps"]) for e in data["episodes"]]


def test_episodes_are_run_seed_by_seed_and_not_twice(graph: Graph, players, tmp_path) -> None:
    policy, sim = graph.start("policy_player_node"), graph.start("players_node")
    first = run_episodes(graph, players, episodes=2, first_seed=10)
    assert first.code == 0, first.output
    assert "success 0.50 [0.09, 0.91] over 2 episodes: 1 success, 1 failure" in first.output
    assert "nothing is recorded" in first.output
    assert results(players) == [(10, "failure", 4), (11, "success", 4)]
    assert policy.output.split("\n")[:4] == ["policy reset", "policy start"] * 2
    second = run_episodes(graph, players, episodes=3, first_seed=10)
    assert second.code == 0, second.output
    assert [line for line in sim.output.splitlines() if line.startswith("sim")] == [f"sim reset {seed}" for seed in (10, 11, 12)]
    assert len(results(players)) == 3


def test_with_a_recorder_every_episode_that_ended_has_its_bag(graph: Graph, players, tmp_path) -> None:
    """One of which nothing said how it ended is counted, but its bag would spoil the dataset of all."""
    graph.start("policy_player_node"), graph.start("players_node", mute=1)
    graph.start("qtransformer_ros.nodes.recorder_node", contract=players["contract"], folder=str(tmp_path / "bags"))
    node = run_episodes(graph, players, episodes=2, episode_timeout_s=1)
    assert node.code == 0, node.output
    assert results(players) == [(0, "failure", 4), (1, "none", 4)]
    assert [p.name for p in (tmp_path / "bags").iterdir() if p.is_dir()] == ["episode_0001"]
    (audit,) = (json.loads(path.read_text()) for path in (tmp_path / "bags").glob("*.audit.json"))
    assert audit["outcome"] == "failure"
    assert "nothing said how it ended" in node.output
    assert "seed 1: episode_0002 is incomplete; its bag is thrown away" in node.output


@pytest.mark.parametrize(("parameters", "acted"), [({"silent_resets": 1}, [0, 0, 1]), ({"late_s": 8.0}, [0, 1])])
def test_no_episode_lacks_what_was_sent(graph: Graph, players, tmp_path, parameters: dict[str, Any], acted: list[int]) -> None:
    """An episode whose bag is incomplete is acted again; none begins before the recorder is connected."""
    graph.start("policy_player_node")
    sim = graph.start("players_node", **parameters)
    graph.start("qtransformer_ros.nodes.recorder_node", contract=players["contract"], folder=str(tmp_path / "bags"))
    node = run_episodes(graph, players, episodes=2)
    assert node.code == 0, node.output
    assert [line for line in sim.output.splitlines() if line.startswith("sim")] == [f"sim reset {seed}" for seed in acted]
    audits = [json.loads(path.read_text()) for path in sorted((tmp_path / "bags").glob("*.audit.json"))]
    assert [(a["outcome"], a["ok"]) for a in audits] == [("failure", True), ("success", True)], audits
    assert results(players) == [(0, "failure", 4), (1, "success", 4)]


def test_a_policy_that_would_not_configure_says_why(graph: Graph, players) -> None:
    graph.start("policy_player_node", refuses=True), graph.start("players_node")
    node = run_episodes(graph, players)
    assert node.code == 1
    assert "qtransformer_policy: would not configure: cannot configure: no checkpoint" in node.output
    assert "Traceback" not in node.output


def test_a_policy_that_fails_ends_the_run_and_keeps_what_is_done(graph: Graph, players) -> None:
    graph.start("policy_player_node", fault_at=1), graph.start("players_node")
    node = run_episodes(graph, players, episodes=3)
    assert node.code == 1, node.output
    assert "the network gave NaN" in node.output
    assert [seed for seed, _, _ in results(players)] == [0]


def test_a_node_that_is_not_there_is_named(graph: Graph, players) -> None:
    node = run_episodes(graph, players, service_timeout_s=1)
    assert node.code == 1
    assert "qtransformer_policy/get_state: no such service within 1 s; start that node first" in node.output

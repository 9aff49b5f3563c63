"""The whole demonstration: four processes, bags, the dataset of them, and the comparison with acting without ROS."""

import json
import sys
from pathlib import Path

from tests.ros_nodes.harness import Graph

TINY = ["model.embed_dim=16", "model.num_layers=1", "model.num_heads=2", "model.ff_dim=16", "model.encoder_width=8"]


def qtransformer(graph: Graph, *arguments: str, timeout: float = 120.0) -> str:
    process = graph.run([sys.executable, "-m", "qtransformer.cli.main", *arguments], arguments[0])
    assert process.wait(timeout) == 0, process.output
    return process.output


def test_a_policy_acts_over_ros_as_it_does_without_and_its_bags_are_what_it_saw(graph: Graph, tmp_path: Path) -> None:
    data, run = tmp_path / "data.hdf5", tmp_path / "run"
    qtransformer(graph, "collect", f"out={data}", "episodes=4", "recipe=expert", "workers=1", "max_steps=8")
    qtransformer(graph, "train", f"dataset={data}", f"run={run}", "steps=4", "save_every=4", "threads=1", "device=cpu", *TINY)
    demo = ["ros-demo", f"run={run}", f"domain={graph.domain}"]
    qtransformer(graph, *demo, "episodes=2")
    out = run / "ros"
    first = json.loads((out / "episodes.json").read_text())["episodes"]
    said = qtransformer(graph, *demo, "episodes=3")  # goes on: two are there
    assert "same outcome as `qtransformer eval` in 3 of 3 scenes" in said
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["episodes"], summary["same_outcome"], summary["dataset_episodes"]) == (3, 3, 3)
    assert json.loads((out / "episodes.json").read_text())["episodes"][:2] == first
    audits = [json.loads(path.read_text()) for path in sorted((out / "bags").glob("*.audit.json"))]
    assert [audit["ok"] for audit in audits] == [True, True, True]

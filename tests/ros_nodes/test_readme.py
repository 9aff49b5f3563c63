"""The tables of ros_bridge/README.md list the parameters that the nodes declare, with their defaults."""

import re
from typing import Any

import pytest
from rcl_interfaces.srv import ListParameters

from tests.ros_nodes.harness import ROOT, Graph

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (fixed|live) \|", re.MULTILINE)
OURS = {"use_sim_time", "start_type_description_service"}
"""Parameters that rclpy declares by itself."""


def documented(heading: str) -> dict[str, str]:
    text = (ROOT / "ros_bridge" / "README.md").read_text()
    section = text[text.index(f"(`/{heading}`)") :]
    section = section[: section.find("\n### ") if "\n### " in section else None]
    return {name: default for name, _, default, _ in ROW.findall(section)}


def said(value: Any) -> str:
    if isinstance(value, str):
        return value or "empty"
    return str(value if isinstance(value, (bool, int, float)) else list(value))


@pytest.mark.parametrize("name", ["policy", "sim", "recorder", "episodes"])
def test_every_parameter_is_documented_with_its_default(graph: Graph, name: str) -> None:
    node, given = f"qtransformer_{name}", {}
    if name in ("recorder", "episodes"):  # these need to know at once
        given = {"contract": str(ROOT / "datasets/contracts/simulated_kuka.yaml"), "folder": str(graph.folder / "out")}
    graph.start(f"qtransformer_ros.nodes.{name}_node", **given)
    response = graph.probe.call(ListParameters, f"{node}/list_parameters", ListParameters.Request())
    declared = {n for n in response.result.names if n not in OURS and not n.startswith("qos_overrides")}
    table = documented(node)
    assert declared == set(table)
    for parameter, default in table.items():
        if parameter not in given:
            assert said(graph.probe.get_parameter(node, parameter)) == default, parameter

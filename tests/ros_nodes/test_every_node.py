"""What every node of ours promises, seen from outside."""

import signal
import sys
from pathlib import Path

import pytest
from std_msgs.msg import String
from std_srvs.srv import Trigger

from tests.ros_nodes.harness import Graph
from tests.ros_nodes.test_readme import documented

STARTED_S = 60.0
"""How long a node may take to start and to refuse, on a busy machine [s]."""
TOY = """\"\"\"A toy for tests.

Not told.\"\"\"

from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger
from qtransformer_ros.nodes.parameters import declared, flag, integer, number, numbers, text, texts
from qtransformer_ros.nodes.qos import EVERY
from qtransformer_ros.nodes.running import publish_last, run

class Toy(Node):
    def __init__(self):
        super().__init__("toy")
        self.settings = declared(self, settings)
        self.last = self.create_publisher(String, "last", EVERY)
        self.create_service(Trigger, "~/fail", self.fail)
        self.create_service(Trigger, "~/show", self.show)

    def show(self, request, response):
        response.message = repr([setting.value for setting in self.settings])
        return response

    def fail(self, request, response):
        raise RuntimeError("boom")

    def on_stop(self):
        publish_last(self.last, String(data="bye"))

def settings(node):
    return [
        number(node, "rate_hz", 5.0, "rate [Hz]", low=0.1, high=100),
        integer(node, "count", 3, "how many", low=0),
        texts(node, "names", [], "names"),
        numbers(node, "box_m", [0.0, 1.0], "box [m]", length=2),
        text(node, "mode", "a", "mode", choices=("a", "b")),
        flag(node, "frozen", False, "frozen", read_only=True),
    ]

def main():
    return run(Toy, declare=settings)
"""


@pytest.fixture(autouse=True)
def toy_module(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "toy_node.py").write_text(TOY)
    graph.env["PYTHONPATH"] += f":{tmp_path}"


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_the_last_message_is_out_before_the_end(graph: Graph, signals: list[signal.Signals]) -> None:
    toy = graph.start("toy_node")
    heard = graph.probe.listen("last", String)
    graph.probe.trigger("toy/show")
    graph.probe.wait_for(lambda: graph.probe.node.count_publishers("last"), "the publisher")
    for number in signals:
        toy.send(number)
    assert toy.wait() == 0, toy.output
    graph.probe.wait_for(lambda: heard, "the last message")


def test_an_exception_of_a_callback_is_logged_and_survived(graph: Graph) -> None:
    toy = graph.start("toy_node")
    client = graph.probe.node.create_client(Trigger, "toy/fail")
    graph.probe.wait_for(client.service_is_ready, "the service")
    client.call_async(Trigger.Request())
    graph.probe.wait_for(lambda: "RuntimeError: boom" in toy.output, "the log")
    graph.probe.trigger("toy/show")
    assert toy.stop() == 0


def test_parameters_convert_and_check(graph: Graph) -> None:
    graph.start("toy_node", rate_hz=7, count=4.0, names=["x"], box_m=[1, 2], mode="b")
    assert graph.probe.trigger("toy/show").message == "[7.0, 4, ('x',), (1.0, 2.0), 'b', False]"
    refused = graph.probe.set_parameters("toy", rate_hz=1000.0, count=-1, names=3, box_m=[1.0], mode="c", frozen=True)
    assert set(refused) == {"rate_hz", "count", "names", "box_m", "mode", "frozen"}
    assert graph.probe.set_parameters("toy", rate_hz=float("nan")) != {}
    assert graph.probe.set_parameters("toy", rate_hz=True) != {}
    assert graph.probe.set_parameters("toy", rate_hz=9, box_m=[3, 4]) == {}
    assert graph.probe.trigger("toy/show").message == "[9.0, 4, ('x',), (3.0, 4.0), 'b', False]"


def test_a_parameter_that_does_not_fit_ends_the_node_with_a_sentence(graph: Graph) -> None:
    toy = graph.start("toy_node", mode="z")
    assert toy.wait() == 1
    assert "expected one of a, b, found 'z'" in toy.output
    assert "Traceback" not in toy.output


@pytest.mark.parametrize("module", ["policy_node", "sim_node", "recorder_node", "episodes_node"])
def test_a_parameter_that_a_node_does_not_have_ends_it(graph: Graph, module: str) -> None:
    """A limit that ROS drops in silence does not limit."""
    node = graph.start(f"qtransformer_ros.nodes.{module}", contrakt="x", checkpont="x", episods=1, fold="x", archm="x")
    assert node.wait(STARTED_S) == 1
    nearest = {"sim": "'archm' (did you mean arm?)", "policy": "'checkpont' (did you mean checkpoint?)"}
    assert nearest.get(module.split("_")[0], "'contrakt' (did you mean contract?)") in node.output
    assert "Traceback" not in node.output


def test_what_rclpy_declares_itself_is_taken(graph: Graph) -> None:
    depth = {"qos_overrides./clock.subscription.depth": 3}
    graph.start("toy_node", use_sim_time=True, start_type_description_service=False, **depth)
    assert graph.probe.get_parameter("toy", "use_sim_time") is True


@pytest.mark.parametrize(("name", "namespace"), [("toi", ""), ("toy", "/arm")])
def test_a_file_of_parameters_for_other_nodes_ends_the_node(graph: Graph, tmp_path: Path, name: str, namespace: str) -> None:
    (tmp_path / "careful.yaml").write_text(f"{name}:\n  ros__parameters: {{rate_hz: 1.0}}\n")
    arguments = [
        "--ros-args",
        "--params-file",
        str(tmp_path / "careful.yaml"),
        *(["-r", f"__ns:={namespace}"] if namespace else []),
    ]
    toy = graph.run([sys.executable, "-c", "import sys, toy_node; sys.exit(toy_node.main())", *arguments], "toy")
    assert toy.wait(STARTED_S) == 1
    assert f"nothing in it is for {namespace}/toy: expected '{namespace}/toy:'" in toy.output
    assert f"found /{name}" in toy.output
    assert "Traceback" not in toy.output


def test_a_file_of_parameters_for_the_node_among_others_counts(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "careful.yaml").write_text("toy:\n  ros__parameters: {rate_hz: 1.0}\nsim:\n  ros__parameters: {arm: kuka}\n")
    arguments = ["--ros-args", "--params-file", str(tmp_path / "careful.yaml")]
    graph.run([sys.executable, "-c", "import sys, toy_node; sys.exit(toy_node.main())", *arguments], "toy")
    assert graph.probe.get_parameter("toy", "rate_hz") == 1.0


def test_words_are_not_taken_for_settings(graph: Graph) -> None:
    toy = graph.run([sys.executable, "-c", "import sys, toy_node; sys.exit(toy_node.main())", "seed=3"], "toy")
    assert toy.wait(STARTED_S) == 2
    assert "expected parameters as --ros-args -p NAME:=VALUE, found seed=3; --help lists them" in toy.output


def test_help_says_what_the_program_is_and_what_may_be_set(graph: Graph) -> None:
    toy = graph.run([sys.executable, "-c", "import sys, toy_node; sys.exit(toy_node.main())", "--help"], "toy")
    assert toy.wait(STARTED_S) == 0
    assert toy.output.splitlines() == [
        "A toy for tests.",
        "",
        "Parameters (--ros-args -p NAME:=VALUE, or --ros-args --params-file FILE):",
        "  rate_hz (double, 5.0): rate [Hz]",
        "  count (int, 3): how many",
        "  names (list, empty): names",
        "  box_m (list, [0.0, 1.0]): box [m]",
        "  mode (string, a): mode (one of a, b)",
        "  frozen (bool, false): frozen",
    ]


@pytest.mark.parametrize("name", ["policy", "sim", "recorder", "episodes"])
def test_help_lists_every_parameter_of_the_readme(graph: Graph, name: str) -> None:
    words = f"import sys; from qtransformer_ros.nodes.{name}_node import main; sys.exit(main())"
    node = graph.run([sys.executable, "-c", words, "--help"], name)
    assert node.wait(STARTED_S) == 0, node.output
    assert f"`qtransformer-{name}`: " in node.output  # pybullet speaks first
    listed = {line.split()[0] for line in node.output.splitlines() if line.startswith("  ")}
    assert listed == set(documented(f"qtransformer_{name}"))


def test_the_policy_says_that_it_waits(graph: Graph) -> None:
    node = graph.start("qtransformer_ros.nodes.policy_node")
    graph.probe.wait_for(lambda: "does nothing before `configure`" in node.output, "the line", STARTED_S)
    assert "ros2 lifecycle set /qtransformer_policy configure" in node.output

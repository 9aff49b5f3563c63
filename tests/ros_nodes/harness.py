"""A ROS graph for one test: nodes as processes, and a probe that talks to them.

    def test_it(graph: Graph) -> None:
        sim = graph.start("qtransformer_ros.nodes.sim_node", control_hz=4, lockstep=True)
        images = graph.probe.listen("camera/wrist/image_raw", Image)
        graph.probe.wait_for(lambda: images, "an image")
        assert sim.stop() == 0

Nothing sleeps for luck: discovery takes between 10 ms and 3 s, so tests wait for conditions, with a ceiling.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATHS = [ROOT, ROOT / "sim", ROOT / "datasets", ROOT / "ros_bridge"]
CEILING_S = 20.0
"""How long anything is waited for, unless said otherwise: starting a process that imports torch takes 6 s on an idle machine."""
SERVER_S = 0.5
"""For a server to know a new client, too, which nobody can ask: it gives up a response after 100 ms of not knowing it."""
RELIABLE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
"""A probe must miss nothing."""
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class NodeProcess:
    """A node in a process and a process group of its own; what it prints goes to a file."""

    def __init__(self, name: str, command: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.name, self.log, self.must_live = name, log, True
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(env), start_new_session=True
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self.process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; whether the process outlives it is the test's business."""
        self.must_live = number in (signal.SIGSTOP, signal.SIGCONT)
        os.killpg(self.process.pid, number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, number: signal.Signals = signal.SIGINT, timeout: float = CEILING_S) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        self.send(number)
        return self.wait(timeout)

    def wait(self, timeout: float = CEILING_S) -> int:
        """Wait for the end. Returns the exit code."""
        self.must_live = False
        return self.process.wait(timeout)

    def clean_up(self) -> None:
        """End it, whatever state it is in; a second signal follows where the first is not enough."""
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            if self.code is None:
                os.killpg(self.process.pid, number)
                if number is not signal.SIGCONT:
                    try:
                        self.process.wait(5.0)
                    except subprocess.TimeoutExpired:
                        continue


class Probe:
    """A node in the test's process. Everything waits by spinning it."""

    def __init__(self, context: Context, processes: list[NodeProcess]) -> None:
        self.node = Node("probe", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.processes = processes
        self._clients: dict[str, Any] = {}

    def listen(self, topic: str, kind: Any, qos: QoSProfile = RELIABLE) -> list[Any]:
        """Subscribe. The list returned grows with every message."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, qos)
        return heard

    def on(self, topic: str, kind: Any, callback: Callable[[Any], None], qos: QoSProfile = RELIABLE) -> None:
        """Subscribe with a callback, for tests that play a part."""
        self.node.create_subscription(kind, topic, callback, qos)

    def publisher(self, topic: str, kind: Any, qos: QoSProfile = RELIABLE, *, listeners: int = 1) -> Publisher:
        """Advertise, and wait until `listeners` subscribers are there."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.wait_for(lambda: publisher.get_subscription_count() >= listeners, f"{listeners} subscriber(s) of {topic}")
        return publisher

    def spin_once(self, timeout: float = 0.05) -> None:
        self.executor.spin_once(timeout_sec=timeout)

    def spin_for(self, seconds: float) -> None:
        """Listen for a while: to see that something does NOT happen. For anything else, `wait_for`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin_once(max(0.0, min(0.05, end - time.monotonic())))

    def wait_for(self, condition: Callable[[], T], what: str, timeout: float = CEILING_S) -> T:
        """Spin until the condition holds. Returns its value. Fails after `timeout` seconds, or where a process has died."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            dead = [p for p in self.processes if p.must_live and p.code is not None]
            if dead or time.monotonic() > end:
                why = f"{dead[0].name} ended with code {dead[0].code}" if dead else f"{timeout} s passed"
                logs = "".join(f"\n--- {p.name} ---\n{p.output[-4000:]}" for p in self.processes)
                pytest.fail(f"waited for {what}, but {why}{logs}", pytrace=True)
            self.spin_once()
        return value

    def call(self, kind: Any, name: str, request: Any, timeout: float = CEILING_S) -> Any:
        """Call a service and return its response."""
        is_new = name not in self._clients
        if is_new:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.wait_for(client.service_is_ready, f"service {name}", timeout)
        if is_new:
            self.spin_for(SERVER_S)
        future = client.call_async(request)
        self.wait_for(future.done, f"response of {name}", timeout)
        return future.result()

    def trigger(self, name: str, timeout: float = CEILING_S) -> Any:
        """Call a std_srvs/Trigger: `.success`, `.message`."""
        return self.call(Trigger, name, Trigger.Request(), timeout)

    def set_bool(self, name: str, value: bool, timeout: float = CEILING_S) -> Any:
        """Call a std_srvs/SetBool: `.success`, `.message`."""
        return self.call(SetBool, name, SetBool.Request(data=value), timeout)

    def set_parameters(self, node: str, **values: Any) -> dict[str, str]:
        """Set parameters one by one. Returns the reasons of those refused, by name; {} if all were taken."""
        request = SetParameters.Request(parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()])
        results = self.call(SetParameters, f"{node}/set_parameters", request).results
        return {name: result.reason for name, result in zip(values, results, strict=True) if not result.successful}

    def get_parameter(self, node: str, name: str) -> Any:
        """The value of a parameter; fails where it is not declared."""
        values = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=[name])).values
        assert values, f"{node} has not declared {name}"
        return parameter_value_to_python(values[0])

    def transition(self, node: str, label: str, timeout: float = CEILING_S) -> bool:
        """Ask a lifecycle node to `configure`, `activate`, `deactivate`, `cleanup`. Returns whether it did."""
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, f"{node}/change_state", request, timeout).success

    def lifecycle_state(self, node: str) -> str:
        """`unconfigured`, `inactive`, `active`, ..."""
        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label


class Graph:
    """A domain of its own, on this machine only, with processes and a probe.

    `env` holds for all of them, the probe too.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **env: str) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._env = env
        self.processes: list[NodeProcess] = []

    def __enter__(self) -> "Graph":
        self.domain, self._claim = claim_domain()
        self.env = os.environ | {
            "ROS_DOMAIN_ID": str(self.domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(self.folder / "ros_log"),
            "PYTHONPATH": os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",  # where a crash of the middleware happened
            **self._env,
        }
        self.env.pop("ROS_LOCALHOST_ONLY", None)
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOG_DIR", *self._env):
            self._monkeypatch.setenv(name, self.env[name])
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=self.domain)
        self.probe = Probe(self.context, self.processes)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.clean_up()
        self.probe.executor.shutdown()
        self.probe.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self._claim.close()

    def start(
        self,
        module: str,
        *,
        name: str = "",
        namespace: str = "",
        remap: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> NodeProcess:
        """Run `main()` of a module as its console script would, with ROS parameters. Does not wait for it."""
        rules = {**(remap or {}), **({"__node": name} if name else {}), **({"__ns": namespace} if namespace else {})}
        arguments = [a for old, new in rules.items() for a in ("-r", f"{old}:={new}")]
        arguments += [a for key, value in parameters.items() for a in ("-p", f"{key}:={json.dumps(value)}")]
        code = f"import sys; from {module} import main; sys.exit(main())"
        ros = ["--ros-args", *arguments] if arguments else []
        return self.run([sys.executable, "-c", code, *ros], module, env)

    def run(self, command: list[str], name: str, env: Mapping[str, str] | None = None) -> NodeProcess:
        """Run any command within the graph."""
        process = NodeProcess(
            name, command, self.folder / f"{len(self.processes)}_{name}.log".replace(os.sep, "_"), {**self.env, **(env or {})}
        )
        self.processes.append(process)
        return process


def claim_domain() -> tuple[int, IO[str]]:
    """A domain id that no other test on this machine uses, and the lock that keeps it ours until it is closed.

    Ids above 101 would reach into the ports that the system gives out.
    """
    for domain in range(1, 102):
        lock = (Path(tempfile.gettempdir()) / f"qtransformer-ros-domain-{domain}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("all 101 ROS domains are taken by other tests")

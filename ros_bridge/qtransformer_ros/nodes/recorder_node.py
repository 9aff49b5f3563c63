"""`qtransformer-recorder`: episodes as MCAP bags, labelled and audited. See ros_bridge/README.md."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from std_srvs.srv import Trigger

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_datasets.rosbag.message_types import CAMERA_TYPES, CONSUMED_TYPE, VECTOR_TYPES
from qtransformer_datasets.rosbag.storage import RawMessage
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.nodes.messages import UNHEARD, message_class
from qtransformer_ros.nodes.parameters import declared, flag, integer, number, text, texts
from qtransformer_ros.nodes.qos import LATCHED
from qtransformer_ros.nodes.running import publish_last, run
from qtransformer_ros.recorder.recorded_bag import TopicInfo, check_folder, distribution_types, offered
from qtransformer_ros.recorder.recording import Recorder, RecorderSettings

TICK_S = 0.05
LOOK_S = 0.25
"""How often the graph is looked at for publishers [s]."""
STATUS_S = 1.0
DEPTH = 1000
"""Messages per topic that may wait while the disk is slow."""
CONSUMED = "qtransformer_policy/consumed"
"""Recorded whether the contract takes its ticks from it or not."""


class RecorderNode(Node):
    """Topics, services and parameters around a `Recorder`."""

    def __init__(self) -> None:
        super().__init__("qtransformer_recorder")
        self.settings = declared(self, settings)
        fixed = {name: setting.value for name, setting in self.settings.items()}
        self.contract_path, folder, auto = fixed["contract"], fixed["folder"], fixed["auto"]
        self.extra = fixed["topics"]
        if not self.contract_path:
            raise ConfigError("contract: expected the YAML file that says what the topics mean, found none; -p contract:=FILE")
        self.contract = TopicContract.load(self.contract_path).resolved(self.get_namespace())
        if auto and self.contract.episodes is None:
            raise ConfigError(f"{self.contract_path}: auto needs `episodes`, which say where they begin and end; add them")
        self.source = {
            "contract": Path(self.contract_path).read_text(encoding="utf-8"),
            "contract_file": Path(self.contract_path).name,
            "versions": json.dumps(versions()),
        }
        check_folder(Path(folder))
        self.recorder = Recorder(
            Path(folder),
            self.contract,
            distribution_types(distribution()),
            RecorderSettings(auto=auto, pre_roll_s=fixed["pre_roll_s"], post_roll_s=fixed["post_roll_s"]),
            self._describe,
            self._log,
        )
        self.status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self.infos: dict[str, TopicInfo] = {}
        self.subscribed: dict[str, tuple[Subscription, tuple[Any, ...]]] = {}
        self.ended: list[Future] = []
        self.unheard: list[str] = []
        """Topics of the contract that no publisher is connected on."""
        self.shown: Any = None
        self.types = expected_types(self.contract)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/discard", self._on_discard)
        on_stop: Any = self._on_stop  # rclpy awaits a coroutine, which its types do not say
        # A group of its own: while it waits, no other callback of its group is called.
        self.create_service(Trigger, "~/stop", on_stop, callback_group=ReentrantCallbackGroup())
        self._look()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulated clock may stand still
        self.create_timer(TICK_S, self._tick, clock=steady)
        self.create_timer(LOOK_S, self._look, clock=steady)
        self.create_timer(STATUS_S, self._publish_status, clock=steady)
        self._publish_status()

    def on_stop(self) -> None:
        """Finish the bag that is open."""
        self.recorder.close()
        self._publish_status(publish_last)

    def _tick(self) -> None:
        self.recorder.tick(time.monotonic())
        if self.ended and not self.recorder.is_ending:
            ended, self.ended = self.ended, []
            for future in ended:
                future.set_result(None)
        _, sentence, _ = self.recorder.status()
        if (sentence, self.unheard) != self.shown:
            self._publish_status()

    def _look(self) -> None:
        """Follow the publishers: what they offer decides how they are heard, and what the bag says of them."""
        for topic in self._topics():
            found = self.get_publishers_info_by_topic(topic)
            if not found and topic in self.subscribed:
                continue
            kind = found[0].topic_type if found else self.types.get(topic, "")
            if not kind:
                continue
            qos = [info.qos_profile for info in found]
            reliable, latched = offered(
                [own.reliability == ReliabilityPolicy.RELIABLE for own in qos],
                [own.durability == DurabilityPolicy.TRANSIENT_LOCAL for own in qos],
            )
            type_hash = str(found[0].topic_type_hash) if found else ""
            type_hash = type_hash if type_hash.startswith("RIHS01_") else ""  # else the publisher's middleware does not tell
            self.infos[topic] = TopicInfo(type=kind, type_hash=type_hash, qos=tuple(dict.fromkeys(map(bag_qos, qos))))
            self._subscribe(topic, kind, reliable, latched)
        self.unheard = [topic for topic in self._contract_topics() if not self._is_heard(topic)]

    def _is_heard(self, topic: str) -> bool:
        """Whether a publisher is connected: one that the graph shows need not be yet."""
        subscription, _ = self.subscribed.get(topic, (None, None))
        return subscription is not None and subscription.get_publisher_count() > 0

    def _subscribe(self, topic: str, kind: str, reliable: bool, latched: bool) -> None:
        """Anew where something changed: but what is heard already is not given up for a better quality within an episode."""
        subscription, own = self.subscribed.get(topic, (None, None))
        wanted = (kind, reliable, latched)
        if own == wanted or (own and own[0] == kind and self.recorder.bag is not None and not (own[1] and not reliable)):
            return
        if subscription is not None:
            self.destroy_subscription(subscription)
        qos = QoSProfile(
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        try:
            made = self.create_subscription(message_class(kind), topic, partial(self._receive, topic), qos, raw=True)
        except (ImportError, AttributeError) as error:
            self.get_logger().error(f"{topic}: {kind} is not installed ({error}): it is not recorded", once=True)
            return
        self.subscribed[topic] = (made, wanted)

    def _topics(self) -> list[str]:
        extra = [self.resolve_topic_name(topic) for topic in (CONSUMED, *self.extra)]
        return list(dict.fromkeys([*self._contract_topics(), *extra]))

    def _contract_topics(self) -> list[str]:
        contract = self.contract
        sources = [source.topic for source in (*contract.observed, *contract.commanded)]
        rules = [rule.topic for rule in (contract.reward, contract.ticks) if rule]
        return list(dict.fromkeys([*sources, *contract.event_topics(), *rules]))

    def _receive(self, topic: str, data: bytes, info: Any) -> None:
        receive_ns = info["received_timestamp"] or time.time_ns()
        self.recorder.receive(self.infos[topic], RawMessage(topic, receive_ns, data), time.monotonic())

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._look()
        return self._serve(response, self.recorder.start)

    async def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Answers when the bag is complete and audited."""
        if not self._serve(response, lambda: self.recorder.stop(time.monotonic())).success:
            return response
        ended = Future()
        self.ended.append(ended)
        await ended
        well, response.message = self.recorder.status()[:2]
        response.success = well and self.recorder.last is not None
        return response

    def _on_discard(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._serve(response, self.recorder.discard)

    def _serve(self, response: Trigger.Response, action: Callable[[], Any]) -> Trigger.Response:
        try:
            response.success, response.message = True, str(action() or "")
        except QTransformerError as error:
            response.success, response.message = False, str(error)
        return response

    def _describe(self) -> dict[str, str]:
        """The label's own words."""
        seed = self.settings["seed"].value
        return {
            "task": self.settings["task"].value,
            "outcome": self.settings["outcome"].value,
            "seed": str(seed) if seed >= 0 else "",
            "checkpoint_sha256": self.settings["checkpoint_sha256"].value,
            **self.source,
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _log(self, is_error: bool, sentence: str) -> None:
        logger = self.get_logger()
        logger.error(sentence) if is_error else logger.info(sentence)

    def _publish_status(self, publish: Callable[[Any, Any], None] = lambda publisher, message: publisher.publish(message)) -> None:
        well, sentence, values = self.recorder.status()
        self.shown = sentence, self.unheard
        values |= {UNHEARD: " ".join(self.unheard)}
        message = DiagnosticStatus(
            level=DiagnosticStatus.OK if well else DiagnosticStatus.ERROR,
            name=self.get_fully_qualified_name(),
            message=sentence,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        publish(self.status, message)


def settings(node: Node) -> dict[str, Any]:
    """Every parameter of the node, declared; the labels may change between episodes."""
    made = [
        text(node, "contract", "", "YAML file of the topic contract", read_only=True),
        text(node, "folder", "bags", "where the bags go", read_only=True),
        flag(node, "auto", False, "begin and end with the contract's `episodes`, not by request", read_only=True),
        number(node, "pre_roll_s", 1.0, "with auto: kept from before the start [s]", low=0, high=60, read_only=True),
        number(node, "post_roll_s", 0.3, "kept from after the end [s]", low=0, high=60, read_only=True),
        texts(node, "topics", [], "further topics to record", read_only=True),
        text(node, "task", "", "label: what was to be done; by default the instruction"),
        text(node, "outcome", "", "label: how it ended, where the contract's outcome is no topic"),
        text(node, "checkpoint_sha256", "", "label: checkpoint of the policy"),
        integer(node, "seed", -1, "label: seed of the episode; -1: none", low=-1),
    ]
    return {setting.name: setting for setting in made}


def expected_types(contract: TopicContract) -> dict[str, str]:
    """ROS types of the topics whose contract says them; of the others the publishers do."""
    types = {s.topic: (CAMERA_TYPES | VECTOR_TYPES)[s.type].name for s in (*contract.observed, *contract.commanded)}
    return types | ({contract.ticks.topic: CONSUMED_TYPE.name} if contract.ticks else {})


def bag_qos(profile: QoSProfile) -> Qos:
    """As a bag keeps it, for whoever plays it."""

    def time_of(duration: Any) -> QosTime:
        seconds, nanoseconds = divmod(duration.nanoseconds, 10**9)
        return QosTime(seconds, nanoseconds)

    return Qos(
        QosHistory(int(profile.history)),
        profile.depth,
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        time_of(profile.deadline),
        time_of(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        time_of(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def distribution() -> str:
    """`kilted`, `jazzy`, ...: as sourced, or by the wheels' version."""
    if os.environ.get("ROS_DISTRO"):
        return os.environ["ROS_DISTRO"]
    return {"7": "jazzy", "9": "kilted"}.get(_version("ros-rclpy").split(".")[0], "jazzy")


def versions() -> dict[str, str]:
    """What made a bag."""
    found = {name: _version(name) for name in ("qtransformer", "rosbags", "ros-rclpy")}
    return {**found, "ros": distribution(), "python": platform.python_version(), "git": commit()}


def commit() -> str:
    """Of the source this runs from, `-dirty` where it was changed; empty where it is installed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main(args: list[str] | None = None) -> int:
    """Entry point of `qtransformer-recorder`. Returns the exit code."""
    return run(RecorderNode, args, settings)

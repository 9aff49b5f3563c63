"""`qtransformer-episodes`: runs the episodes of a demonstration and counts how they end. See ros_bridge/README.md."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from tqdm import tqdm

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_datasets.rosbag.ros_messages import word_of
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.nodes.messages import UNHEARD
from qtransformer_ros.nodes.parameters import declared, integer, number, text
from qtransformer_ros.nodes.qos import EVERY, LATCHED
from qtransformer_ros.nodes.running import run
from qtransformer_ros.recorder.episode_counts import FILE, EpisodeCounts, EpisodeOutcome

TICK_S = 0.01
LOOK_S = 4.0
"""How long a recorder is looked for [s]: discovery takes up to 3 s."""
HEARD_S = 15.0
"""How long the recorder may take to be connected with all that it records [s]: on a busy machine, several times a discovery."""
SERVER_S = 0.5
"""For a server to know a new client, too, which nobody can ask: it gives up an answer after 100 ms of not knowing it [s]."""
ATTEMPTS = 2
"""How often an episode is acted whose bag did not keep all of it."""
SETTLE_S = 0.1
"""How long the last control step may take to be heard of [s]."""
TRANSITIONS = {State.PRIMARY_STATE_UNCONFIGURED: "configure", State.PRIMARY_STATE_INACTIVE: "activate"}
ROLES = ("policy", "sim", "recorder")


@dataclass(frozen=True, slots=True)
class Wait:
    """What the script waits for before it goes on."""

    until: Callable[[], bool]
    seconds: float
    """Longest [s]."""
    failure: str = ""
    """What to say if it took longer; empty: go on."""


Script = Generator[Wait, None, Any]


class EpisodesNode(Node):
    """Asks policy, simulator and recorder for one episode after the other.

    What it does is a script that yields what it waits for, and is resumed by a timer: nothing blocks the callbacks.
    """

    def __init__(self) -> None:
        super().__init__("qtransformer_episodes")
        given = {name: setting.value for name, setting in declared(self, settings).items()}
        contract, self.count, self.first_seed = given["contract"], given["episodes"], given["first_seed"]
        self.limit_s, self.wait_s = given["episode_timeout_s"], given["service_timeout_s"]
        self.names = {role: given[role] for role in ROLES}
        if not contract:
            raise ConfigError("contract: expected the YAML file that says what the topics mean, found none; -p contract:=FILE")
        self.contract = TopicContract.load(contract).resolved(self.get_namespace())
        if self.contract.outcome is None or not self.contract.outcome.topic:
            raise ConfigError(f"{contract}: expected `outcome: {{topic: ...}}`, which says how an episode ends, found none; add it")
        self.counts = EpisodeCounts.open(Path(given["folder"]) / FILE)
        self.outcome, self.steps, self.policy_state, self.policy_reason = "", 0, "", ""
        self.records = self.is_recording = False
        self.unheard: str | None = None
        """Topics that the recorder is not connected with; None until it has said so."""
        self.code = 1
        """Exit code: 0 when all episodes are done."""
        self._asked: dict[str, Any] = {}
        self.create_subscription(String, self.contract.outcome.topic, self._on_word, EVERY)
        self.create_subscription(Bool, f"{self.names['sim']}/done", self._on_done, EVERY)
        self.create_subscription(DiagnosticStatus, f"{self.names['policy']}/status", self._on_status, LATCHED)
        self.create_subscription(DiagnosticStatus, f"{self.names['recorder']}/status", self._on_recorder_status, LATCHED)
        self._script = self._run()
        self._wait = Wait(lambda: True, 0.0)
        self._since = time.monotonic()
        self.create_timer(TICK_S, self._advance, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_stop(self) -> None:
        """An episode that was broken off is no episode."""
        self._script.close()
        if self.is_recording:
            self._client(Trigger, f"{self.names['recorder']}/discard").call_async(Trigger.Request())
            time.sleep(SETTLE_S)  # until it is out

    def _on_word(self, message: Any) -> None:
        rule = self.contract.outcome
        self.outcome = (rule.outcome(word_of(message)) if rule else "") or self.outcome

    def _on_done(self, _: Bool) -> None:
        self.steps += 1

    def _on_status(self, status: DiagnosticStatus) -> None:
        self.policy_state = value_of(status, "state") or ""
        self.policy_reason = status.message

    def _on_recorder_status(self, status: DiagnosticStatus) -> None:
        self.unheard = value_of(status, UNHEARD)

    def _advance(self) -> None:
        """Resume the script if what it waits for is there, or has not come in time."""
        is_late = time.monotonic() - self._since > self._wait.seconds
        try:
            if self._wait.until():
                self._wait = next(self._script)
            elif is_late and self._wait.failure:
                raise ConfigError(self._wait.failure)
            elif is_late:
                self._wait = next(self._script)
            else:
                return
            self._since = time.monotonic()
        except StopIteration:
            self.code = 0
            raise ExternalShutdownException from None
        except QTransformerError as error:
            self.get_logger().fatal(str(error))
            raise ExternalShutdownException from None

    def _run(self) -> Script:
        left = self.counts.left(range(self.first_seed, self.first_seed + self.count))
        if left:
            yield from self._prepare()
        with tqdm(total=self.count, initial=self.count - len(left), desc="episodes", unit="episode", disable=None) as bar:
            for seed in left:
                outcome = yield from self._kept_episode(seed)
                self.counts.add(outcome)
                bar.update()
                bar.set_postfix_str(self.counts.text().split(" over")[0])
                self.get_logger().info(f"seed {seed}: {outcome.outcome} after {outcome.steps} steps, {outcome.seconds:.1f} s")
        print(self.counts.text(), flush=True)

    def _prepare(self) -> Script:
        """Bring the policy to life, and look for a recorder that hears it."""
        policy = self.names["policy"]
        for _ in range(3):
            found = yield from self._ask(GetState, f"{policy}/get_state", GetState.Request())
            if found.current_state.id == State.PRIMARY_STATE_ACTIVE:
                break
            label = TRANSITIONS.get(found.current_state.id)
            if label is None:
                raise ConfigError(f"{policy}: is {found.current_state.label}; start it anew")
            request = ChangeState.Request()
            request.transition.label = label
            answer = yield from self._ask(ChangeState, f"{policy}/change_state", request)
            if not answer.success:
                yield Wait(lambda: False, SETTLE_S)  # its status says why, and may be on its way
                raise ConfigError(f"{policy}: would not {label}: {self.policy_reason or 'see its log'}")
        recorder = self._client(Trigger, f"{self.names['recorder']}/start")
        yield Wait(recorder.service_is_ready, LOOK_S)
        self.records = recorder.service_is_ready()
        if not self.records:
            self.get_logger().warning(f"no {self.names['recorder']}: nothing is recorded")
            return
        yield Wait(lambda: self.unheard == "", HEARD_S)
        if self.unheard:
            self.get_logger().warning(f"{self.names['recorder']}: no publisher of {self.unheard} within {HEARD_S:g} s")

    def _kept_episode(self, seed: int) -> Script:
        """An episode; acted again if its bag lacks some of it. No such bag stays: one spoils the dataset."""
        for attempt in range(ATTEMPTS):
            outcome, is_kept = yield from self._episode(seed)
            if is_kept:
                return outcome
            is_last = outcome.outcome == "none" or attempt == ATTEMPTS - 1
            remedy = "its bag is thrown away" if is_last else "the episode is acted again"
            self.get_logger().warning(f"seed {seed}: {outcome.bag} is incomplete; {remedy}")
            yield from self._trigger(f"{self.names['recorder']}/discard")
            if is_last:
                return replace(outcome, bag="")

    def _episode(self, seed: int) -> Script:
        """Returns its outcome, and whether all that was to be recorded of it was."""
        policy, sim = self.names["policy"], self.names["sim"]
        bag = (yield from self._start_recording(seed)) if self.records else ""
        yield from self._trigger(f"{policy}/reset")
        yield Wait(lambda: self.policy_state != "FAULT", SETTLE_S)
        if self.policy_state == "PAUSED":
            yield from self._trigger(f"{policy}/start")
        yield from self._set(sim, seed=seed)
        self.outcome, self.steps, held = "", 0, self.policy_state == "HOLD"
        began = time.monotonic()
        answer = yield from self._trigger(f"{sim}/reset")
        if not answer.success:
            raise ConfigError(f"{sim}: would not reset: {answer.message}")
        if held:  # the first samples end a hold, and somebody has to say that it may go on
            yield Wait(lambda: self.policy_state != "HOLD", SETTLE_S)
            yield from self._trigger(f"{policy}/start")
        yield Wait(lambda: bool(self.outcome) or self.policy_state in ("FAULT", "ESTOP"), self.limit_s)
        seconds = time.monotonic() - began
        if not self.outcome and self.policy_state in ("FAULT", "ESTOP"):
            raise ConfigError(f"{policy}: {self.policy_reason}; mend that and start again: what is done is kept")
        yield Wait(lambda: False, SETTLE_S)
        is_kept = (yield from self._stop_recording()) if self.records else True
        ended = self.outcome or "none"
        return EpisodeOutcome(seed=seed, outcome=ended, steps=self.steps, seconds=round(seconds, 3), bag=bag), is_kept

    def _start_recording(self, seed: int) -> Script:
        recorder = self.names["recorder"]
        yield from self._set(recorder, seed=seed)
        answer = yield from self._trigger(f"{recorder}/start")
        if not answer.success:
            raise ConfigError(f"{recorder}: would not start: {answer.message}")
        self.is_recording = True
        return answer.message

    def _stop_recording(self) -> Script:
        answer = yield from self._trigger(f"{self.names['recorder']}/stop")
        self.is_recording = False
        if not answer.success:
            self.get_logger().error(f"{self.names['recorder']}: {answer.message}")
        return answer.success

    def _set(self, node: str, **values: int) -> Script:
        request = SetParameters.Request(parameters=[Parameter(name, value=v).to_parameter_msg() for name, v in values.items()])
        answer = yield from self._ask(SetParameters, f"{node}/set_parameters", request)
        for name, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise ConfigError(f"{node}: would not take {name}={values[name]}: {result.reason}")

    def _trigger(self, name: str) -> Script:
        return (yield from self._ask(Trigger, name, Trigger.Request()))

    def _ask(self, kind: Any, name: str, request: Any) -> Script:
        """Call a service, and return what it answers."""
        is_new, client = name not in self._asked, self._client(kind, name)
        yield Wait(client.service_is_ready, self.wait_s, f"{name}: no such service within {self.wait_s:g} s; start that node first")
        if is_new:
            yield Wait(lambda: False, SERVER_S)
        future = client.call_async(request)
        yield Wait(future.done, self.wait_s, f"{name}: no answer within {self.wait_s:g} s; raise service_timeout_s, or see its log")
        return future.result()

    def _client(self, kind: Any, name: str) -> Any:
        if name not in self._asked:
            self._asked[name] = self.create_client(kind, name)
        return self._asked[name]


def settings(node: Node) -> dict[str, Any]:
    """Every parameter of the node, declared."""
    made = [
        text(node, "contract", "", "YAML file of the topic contract", read_only=True),
        integer(node, "episodes", 10, "how many", low=1, read_only=True),
        integer(node, "first_seed", 0, "seed of the first; the others count up", low=0, read_only=True),
        text(node, "folder", "episodes", f"where {FILE} goes; what is in it is not done again", read_only=True),
        number(node, "episode_timeout_s", 60.0, "longest an episode may take [s]", low=0.1, high=86_400),
        number(node, "service_timeout_s", 60.0, "longest a node may take to answer [s]", low=0.1, high=3600),
        *(text(node, role, f"qtransformer_{role}", f"name of the {role} node", read_only=True) for role in ROLES),
    ]
    return {setting.name: setting for setting in made}


def value_of(status: DiagnosticStatus, key: str) -> str | None:
    """None where the status does not have the key."""
    return next((value.value for value in status.values if value.key == key), None)


def main(args: list[str] | None = None) -> int:
    """Entry point of `qtransformer-episodes`. Returns the exit code: 0 when all episodes are done."""
    made: list[EpisodesNode] = []

    def make() -> EpisodesNode:
        made.append(EpisodesNode())
        return made[0]

    return run(make, args, settings) or (made[0].code if made else 0)

"""The control loop of a deployed policy as a state machine with an injected clock: no ROS, no threads, no waiting.

A node feeds it messages and time; it answers with effects: an observation to decide on, a command to send, a hold. Every failure
row of the project's fault table that concerns a running policy is decided here. All events must come from one thread.
"""

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.types import ActionSpec, Observation
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.buffer import NANOSECONDS, Clock
from qtransformer_ros.intake import UNUSABLE, Intake
from qtransformer_ros.motion import Command
from qtransformer_ros.safety import Measured, Refusal, SafetyLimits, loosened, restrict

MAX_STRIKES = 3
"""Unusable actions in a row that make a fault."""
BACKWARD_NS = 50_000_000
"""ROS time may be slewed back by less than this without having jumped."""


class RunState(Enum):
    idle = "IDLE"
    """Configured, not activated."""
    running = "RUNNING"
    paused = "PAUSED"
    """By request, at the start, or after an e-stop: waits for `start`."""
    hold = "HOLD"
    """By a failure that may pass: the arm was told to stay where it is; resumes by itself only with `auto_resume`."""
    estop = "ESTOP"
    """Latched."""
    fault = "FAULT"
    """By a failure that will not pass: only `reset` leads out, into PAUSED."""


class BelowMinValue(Enum):
    """What to do about an action that the policy itself expects little of."""

    hold = "hold"
    ask = "ask"
    """PAUSED: a person looks, and calls `start`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How a policy is run. What is not in `safety.SafetyLimits`."""

    control_hz: float
    """Rate of decisions [Hz]."""
    image_timeout_s: float = 0.5
    """Age from which a camera is stale [s]."""
    joint_timeout_s: float = 0.2
    """The same for everything else that is measured [s]."""
    max_sync_skew_s: float = 0.1
    """Largest difference of stamps within one observation [s]."""
    inference_timeout_s: float = 0.0
    """Age from which an answer is too old to act on [s]; 0: one and a half control periods."""
    max_consecutive_misses: int = 3
    """Ticks in a row without an answer, or without samples that belong together, that make a hold."""
    max_consecutive_rejections: int = 3
    """Unusable messages of one topic in a row that make a hold."""
    start_paused: bool = True
    auto_resume: bool = False
    """Whether a hold ends by itself, in RUNNING rather than PAUSED. For simulators."""
    fresh_frames_to_resume: int = 5
    """Samples of every topic before a hold counts as passed."""
    dry_run: bool = False
    """Decide, check, propose; command nothing, not even a hold."""
    lockstep: bool = False
    """Decide once on every complete set of samples with one stamp, however long that takes; the simulator waits."""
    require_stamps: bool = False
    """Refuse messages whose stamp was not set, rather than take their receipt for it."""
    max_identical_images: int = 0
    """Images in a row, the same to the last bit, from which a camera counts as frozen; 0: never, as simulators render so."""
    min_value: float | None = None
    """Expected return below which an action is not taken; None: every action is."""
    below_min_value: BelowMinValue = BelowMinValue.hold
    estop_timeout_s: float = 0.0
    """Silence of the e-stop topic that counts as pressed [s]; 0: it need not be heard."""
    max_episode_s: float = 0.0
    """Running time after which the policy is paused [s]; 0: none."""

    def __post_init__(self) -> None:
        above = ("control_hz", "image_timeout_s", "joint_timeout_s", "max_sync_skew_s", "max_consecutive_misses")
        for name in (*above, "max_consecutive_rejections", "fresh_frames_to_resume"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} expected a finite number above 0, found {getattr(self, name)}")
        for name in ("inference_timeout_s", "max_identical_images", "estop_timeout_s", "max_episode_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} expected a finite number from 0, found {getattr(self, name)}")
        if self.max_identical_images == 1:
            raise ConfigError("max_identical_images expected 0 (off) or at least 2: a single image repeats nothing")
        if self.min_value is not None and not math.isfinite(self.min_value):
            raise ConfigError(f"min_value expected a finite number, found {self.min_value}")

    @property
    def period_s(self) -> float:
        return 1 / self.control_hz

    @property
    def answer_timeout_s(self) -> float:
        return self.inference_timeout_s or 1.5 * self.period_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An observation to decide on."""

    observation: Observation
    stamps: dict[str, int]
    """Topic to the header stamp [ns] of the sample used."""
    number: int
    """Counts requests; an answer to an old one is dropped."""
    generation: int
    """Counts resets: an answer from before a reset is dropped, and the policy's history with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The network's answer to a request."""

    request: Request
    action: np.ndarray
    """float (n,), robot units."""
    value: float | None
    """Expected return; None for a cloned policy."""
    seconds: float
    """Inference time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What the node has to do after an event; nothing by default. In this order: reset, hold, command, request, status."""

    reset_history: bool = False
    """Make the policy forget its episode before the next request."""
    hold: bool = False
    """Publish a hold at the measured pose (`PolicyRuntime.measured`), then nothing more."""
    command: Command | None = None
    """Publish this."""
    proposed: Command | None = None
    """What is commanded, or in a dry run would be."""
    request: Request | None = None
    """Give this to the network, instead of any that waits."""
    changed: bool = False
    """State or reason changed: publish the status."""
    refused: str = ""
    """Why a request of a person was not granted."""


NOTHING = Effects()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a status tells."""

    state: RunState
    reason: str
    """A word, a colon and a sentence; "" while running."""
    ages_s: dict[str, float | None]
    """Topic to the time since its newest sample [s]; None before the first."""
    skew_s: float
    counts: dict[str, int]
    """commands, requests, misses, dropped_answers, skewed, unusable, non_finite, refused, time_jumps, holds, below_min_value."""
    topics: dict[str, dict[str, int]]
    """Topic to taken, rejected, out_of_order, repeated_stamp, future, no_stamp, bad_stamp."""
    clamps: dict[str, int]
    """Limit to how often it was hit: action, position, step, velocity, acceleration, workspace."""
    inference_p50_ms: float | None
    """Of the last few hundred answers; None before the first."""
    inference_p99_ms: float | None


@dataclass(slots=True)
class _Flight:
    """A request on its way through the network."""

    request: Request
    asked_ns: int
    missed: bool = False
    """Whether a tick has counted it as a miss already."""


@dataclass(slots=True)
class _Run:
    """What is true of one stretch of RUNNING, and begins anew with the next."""

    began_ns: int = 0
    requests: int = 0
    misses: int = 0
    """In a row."""
    skewed: int = 0
    """Ticks in a row."""
    unusable: int = 0
    """Ticks in a row whose images could not be decoded."""
    velocities: dict[str, float] = field(default_factory=dict)
    """Of joints, as last commanded [rad/s]."""


class PolicyRuntime:
    """See the module docstring.

    Events: `receive(topic, message)`, `tick()` (once per control period, or in lockstep whenever a sample came), `watch()` (at the
    command rate: time-outs), `decided(answer)`, `failed(error)` (inference raised), `activate()`, `deactivate()`, `start()`,
    `stop()`, `reset()`, `estop(pressed)` (the service), `estop_heard(pressed)` (the topic), `enable_motion(enabled)`,
    `listeners(count)` (subscribers of the command topic; until told, there are none), `rivals(count)` (its other publishers).
    Each returns `Effects`.

    Raises ConfigError: limits that need a measurement that no topic gives, or a threshold on values that a cloned policy has not.
    """

    def __init__(
        self,
        contract: TopicContract,
        action_spec: ActionSpec,
        limits: SafetyLimits,
        settings: RuntimeSettings,
        clock: Clock,
        *,
        to_command: Callable[[np.ndarray], Command],
        joint_topic: str = "",
        pose_topic: str = "",
        has_values: bool = True,
        instruction: str = "",
    ) -> None:
        """`to_command` turns an action (n,) in robot units into a command; `joint_topic` (JointState) and `pose_topic`
        (PoseStamped) are where the limits' joints and the tool are measured; `has_values` is False for a cloned policy."""
        if settings.min_value is not None and not has_values:
            raise ConfigError("min_value needs a policy with values, and this one was cloned (algo=bc): remove the threshold")
        if limits.joints and not joint_topic:
            raise ConfigError("joints are limited, and no topic measures them: give the topic of their JointState")
        if limits.has_workspace and not pose_topic:
            raise ConfigError("the workspace is limited, and no topic measures the tool: give the topic of its PoseStamped")
        self.state, self.reason = RunState.idle, "inactive: not activated"
        self.counts: Counter[str] = Counter()
        self.clamps: Counter[str] = Counter()
        self._spec, self._limits, self._settings, self._clock = action_spec, limits, settings, clock
        self._to_command = to_command
        self._intake = Intake(
            contract,
            clock,
            joints=tuple(limits.joints),
            joint_topic=joint_topic if limits.joints else "",
            pose_topic=pose_topic,
            instruction=instruction,
            require_stamps=settings.require_stamps,
            max_identical=settings.max_identical_images,
            lockstep=settings.lockstep,
        )
        self._seconds: deque[float] = deque(maxlen=500)
        self._latest_ros_ns = clock.ros_ns()
        self._number = self._generation = self._strikes = 0
        self._flight: _Flight | None = None
        self._run = _Run()
        self._consumed: dict[str, int] = {}
        """Topic to the stamp of the sample last acted on."""
        self._seen_at_hold: dict[str, int] = {}
        self._begins_by_itself = False
        """Whether a hold is only the wait for first samples."""
        self._active = self._latched = self._button = self._faulted = False
        self._button_heard_ns = 0
        self._motion_enabled, self._listeners, self._rivals = True, 0, 0

    @property
    def limits(self) -> SafetyLimits:
        return self._limits

    @property
    def measured(self) -> Measured:
        """Where the arm was last seen: a hold is made of it."""
        return self._intake.measured()

    @property
    def instruction(self) -> str | None:
        """What the robot is asked to do; None: not said yet."""
        return self._intake.instruction

    # What comes from the robot

    def receive(self, topic: str, message: Any) -> Effects:
        """A message of a topic of the contract, of the measured joints, or of the measured tool."""
        effects = self._check_time()
        why = self._intake.receive(topic, message)
        if why == "out_of_order" and self._settings.lockstep:  # reliable topics keep their order: time itself went back
            effects = self._time_jumped()
            self._intake.receive(topic, message)
        return effects if effects.changed else self._complain()

    def estop_heard(self, pressed: bool) -> Effects:
        """A message on the e-stop topic. False only shows that somebody is there."""
        self._button, self._button_heard_ns = bool(pressed), self._clock.monotonic_ns()
        return self._latch("estop: pressed") if pressed else NOTHING

    def enable_motion(self, enabled: bool) -> Effects:
        """The robot's own word on whether it may be moved."""
        self._motion_enabled = bool(enabled)
        if enabled or self.state not in (RunState.running, RunState.hold):
            return NOTHING
        return self._leave(RunState.paused, "motion_disabled: the robot said so")

    def listeners(self, count: int) -> Effects:
        """How many subscribe to the topic of commands."""
        self._listeners = count
        return self._give_way()

    def rivals(self, count: int) -> Effects:
        """How many others publish on the topic of commands."""
        self._rivals = count
        return self._give_way()

    def _give_way(self) -> Effects:
        if self.state is RunState.running and (why := self._blocked()):
            return self._leave(RunState.hold, why)
        return NOTHING

    # What comes from the clock

    def tick(self) -> Effects:
        """Ask for a decision if it is time for one."""
        effects = self._check_time()
        if effects.changed or self.state is not RunState.running:
            return effects
        if self._is_over():
            return self._leave(RunState.paused, f"episode_over: it ran for {self._settings.max_episode_s:g} s")
        if self._settings.lockstep:
            return self._ask() if self._is_complete() else NOTHING
        if (effects := self._complain()).changed:
            return effects
        if self._flight is not None:
            self._flight.missed = True
            if (effects := self._miss()).changed:
                return effects
        samples = self._intake.samples
        if samples.stamps(self._intake.observed) == self._consumed:
            return NOTHING  # nothing new was seen: ticks that come in a burst decide once
        if samples.skew_s(self._intake.observed) > self._settings.max_sync_skew_s:
            return self._skewed()
        self._run.skewed = 0
        return self._ask()

    def watch(self) -> Effects:
        """Look at every time-out, and whether a hold has passed."""
        effects = self._check_time()
        if effects.changed:
            return effects
        if self._estop_is_silent():
            return self._latch(f"estop: its topic was silent for more than {self._settings.estop_timeout_s:g} s")
        if self.state is RunState.running:
            return self._complain()
        return self._recover() if self.state is RunState.hold else NOTHING

    # What comes from the network

    def decided(self, answer: Decided) -> Effects:
        """An answer: a command, if it is the answer to the newest request, in time, finite and within all limits."""
        self._seconds.append(answer.seconds)
        flight = self._flight
        if flight is None or answer.request.number != flight.request.number:  # only RUNNING has one
            self.counts["dropped_answers"] += 1
            return NOTHING
        if not self._settings.lockstep and self._since_s(flight.asked_ns) > self._settings.answer_timeout_s:
            self._flight = None
            self.counts["dropped_answers"] += 1
            return NOTHING if flight.missed else self._miss()
        if (effects := self._complain()).changed:
            return effects
        return self._act(answer)

    def failed(self, error: BaseException) -> Effects:
        """Inference raised."""
        if self.state is not RunState.running:
            return NOTHING
        return self._strike(f"inference_failed: {type(error).__name__}: {error}")

    # What comes from people

    def activate(self) -> Effects:
        self._active, self._button_heard_ns = True, self._clock.monotonic_ns()
        if self._latched:
            return self._enter(RunState.estop, "estop: pressed before activation")
        if self._faulted:
            return self._enter(RunState.fault, "fault: not reset")
        if self._settings.start_paused:
            return self._enter(RunState.paused, "waiting: for start")
        self._begins_by_itself = True
        effects = self._enter(RunState.hold, "waiting: for first samples")
        self._seen_at_hold = {}
        begun = self._recover()
        return begun if begun.changed else effects

    def deactivate(self) -> Effects:
        self._active = False
        return self._leave(RunState.idle, "inactive: deactivated")

    def start(self) -> Effects:
        """Run, from PAUSED or HOLD, if nothing speaks against it."""
        if self.state is RunState.running:
            return NOTHING
        if self.state not in (RunState.paused, RunState.hold):
            return Effects(refused=f"cannot start: {self.state.value} ({self.reason})")
        why = self._blocked() or self._complaint()
        return Effects(refused=f"cannot start: {why}") if why else self._begin()

    def stop(self) -> Effects:
        """Hold, and wait for `start`."""
        if self.state not in (RunState.running, RunState.hold):
            return NOTHING
        return self._leave(RunState.paused, "stopped: by request")

    def reset(self) -> Effects:
        """Forget the episode, and a fault."""
        self._drop_flight()
        self._intake.forget_sizes()
        self._generation += 1
        self._strikes = 0
        self._faulted = False
        changed = self.state is RunState.fault
        if changed:
            self._enter(RunState.paused, "waiting: for start, after a reset")
        return Effects(reset_history=True, changed=changed)

    def estop(self, pressed: bool) -> Effects:
        """The service: latch, or unlatch into PAUSED."""
        if pressed:
            return self._latch("estop: called")
        if not self._latched:
            return NOTHING
        if self._button:
            return Effects(refused="cannot unlatch: the e-stop topic still says pressed")
        if self._estop_is_silent():
            return Effects(refused="cannot unlatch: the e-stop topic is silent")
        self._latched = False
        if not self._active:
            return self._enter(RunState.idle, "inactive: not activated")
        if self._faulted:
            return self._enter(RunState.fault, "fault: not reset")
        return self._enter(RunState.paused, "waiting: for start, after an e-stop")

    def change_limits(self, limits: SafetyLimits) -> str:
        """Take other limits of the same joints; "" or why not."""
        why = self.refusal_of(limits)
        if not why:
            self._limits = limits
        return why

    def refusal_of(self, limits: SafetyLimits) -> str:
        """Why other limits would not be taken now: while running, limits are only ever tightened. "" if they would."""
        looser = loosened(self._limits, limits)
        if looser and self.state is RunState.running:
            return f"limits are not loosened while running ({', '.join(looser)}): stop first"
        if set(limits.joints) != set(self._limits.joints) or limits.has_workspace > self._limits.has_workspace:
            return "other joints, or a workspace where there was none, need other topics: configure again"
        return ""

    def complaint(self) -> str:
        """The first thing that cannot be trusted now, and why; "" if decisions could be made."""
        return self._complaint()

    def look(self) -> Request | None:
        """What would be decided on now, to judge other policies' actions by; None where it is not complete or not fresh."""
        if self._complaint():
            return None
        try:
            observation = self._intake.observation()
        except UNUSABLE:
            return None
        stamps = self._intake.samples.stamps(self._intake.observed)
        return Request(observation=observation, stamps=stamps, number=-1, generation=self._generation)

    def snapshot(self) -> Snapshot:
        samples = self._intake.samples
        topics: dict[str, dict[str, int]] = {topic: {} for topic in self._intake.required}
        for (topic, what), count in self._intake.counts.items():
            topics.setdefault(topic, {})[what] = count
        times = np.array(self._seconds) * 1e3
        return Snapshot(
            state=self.state,
            reason=self.reason,
            ages_s={topic: samples.age_s(topic) for topic in self._intake.required},
            skew_s=samples.skew_s(self._intake.observed),
            counts=dict(self.counts),
            topics=topics,
            clamps=dict(self.clamps),
            inference_p50_ms=float(np.percentile(times, 50)) if len(times) else None,
            inference_p99_ms=float(np.percentile(times, 99)) if len(times) else None,
        )

    # States

    def _enter(self, state: RunState, reason: str) -> Effects:
        self.state, self.reason = state, reason
        return Effects(changed=True)

    def _leave(self, state: RunState, reason: str) -> Effects:
        """Into a state that commands nothing, with a hold if there was motion."""
        moved = self.state is RunState.running
        if state is RunState.hold:
            self.counts["holds"] += 1
            self._count_from_here()
        self._begins_by_itself = False
        self._drop_flight()
        self._enter(state, reason)
        return Effects(hold=moved and not self._settings.dry_run, changed=True)

    def _count_from_here(self) -> None:
        """Fresh samples are those that come from now on."""
        self._seen_at_hold = {topic: self._intake.samples.taken(topic) for topic in self._intake.required}

    def _begin(self) -> Effects:
        self._run = _Run(began_ns=self._clock.monotonic_ns())
        self._generation += 1
        self._begins_by_itself = False
        self._enter(RunState.running, "")
        request = self.tick().request if self._settings.lockstep else None
        return Effects(reset_history=True, request=request, changed=True)

    def _latch(self, reason: str) -> Effects:
        if self._latched:
            return NOTHING
        self._latched = True
        return self._leave(RunState.estop, reason)

    def _recover(self) -> Effects:
        """Out of a hold whose cause has passed."""
        # A simulator that waits sends one set of samples, and no more before it is answered.
        lockstep, samples = self._settings.lockstep, self._intake.samples
        fresh = 1 if self._begins_by_itself or lockstep else self._settings.fresh_frames_to_resume
        if self._blocked() or self._complaint():
            return NOTHING
        if any(samples.taken(topic) - self._seen_at_hold.get(topic, 0) < fresh for topic in self._intake.required):
            return NOTHING
        if not lockstep and samples.skew_s(self._intake.observed) > self._settings.max_sync_skew_s:
            return NOTHING
        if self._settings.auto_resume or self._begins_by_itself:
            return self._begin()
        return self._leave(RunState.paused, f"waiting: for start, after {self.reason}")

    # What speaks against running

    def _blocked(self) -> str:
        if not self._motion_enabled:
            return "motion_disabled: the robot said so"
        if not self._listeners and not self._settings.dry_run:
            return "no_listener: nobody subscribes to the commands"
        if self._rivals and not self._settings.dry_run:
            return f"rival: {self._rivals} other publisher(s) command the arm, which obeys one master: stop the other"
        return ""

    def _complaint(self) -> str:
        """The first topic that cannot be trusted now, and why."""
        if self._intake.instruction is None:
            return "waiting: for an instruction"
        for topic in self._intake.required:
            if why := self._complaint_about(topic):
                return why
        return ""

    def _complaint_about(self, topic: str) -> str:
        count, why = self._intake.rejections.get(topic, (0, ""))
        # In lockstep nothing follows a message that was rejected.
        if count >= (1 if self._settings.lockstep else self._settings.max_consecutive_rejections):
            return f"rejected: {topic}: {why}"
        if self._settings.lockstep:
            return ""
        camera = topic in self._intake.cameras
        word = "image_stale" if camera else "joints_stale"
        age = self._intake.samples.age_s(topic)
        if age is None:
            return f"{word}: {topic}: nothing came yet"
        if age > (self._settings.image_timeout_s if camera else self._settings.joint_timeout_s):
            return f"{word}: {topic}: nothing new for {age:.2f} s"
        if self._intake.samples.frozen(topic):
            return f"{word}: {topic}: the same image again and again"
        return ""

    def _complain(self) -> Effects:
        if self.state is RunState.running and (why := self._complaint()):
            return self._leave(RunState.hold, why)
        return NOTHING

    def _estop_is_silent(self) -> bool:
        timeout = self._settings.estop_timeout_s
        return bool(timeout and self._active and self._since_s(self._button_heard_ns) > timeout)

    def _is_over(self) -> bool:
        limit = self._settings.max_episode_s
        # Simulated time is what a simulator that waits is to be measured by.
        lasted = self._run.requests * self._settings.period_s if self._settings.lockstep else self._since_s(self._run.began_ns)
        return bool(limit) and lasted >= limit

    def _check_time(self) -> Effects:
        now = self._clock.ros_ns()
        if self._settings.lockstep:
            return NOTHING  # its stamps tell, and in order
        if now < self._latest_ros_ns - BACKWARD_NS:
            self._latest_ros_ns = now
            return self._time_jumped()
        self._latest_ros_ns = max(self._latest_ros_ns, now)
        return NOTHING

    def _time_jumped(self) -> Effects:
        """Nothing that was seen before is comparable with what comes."""
        self.counts["time_jumps"] += 1
        self._intake.forget()
        self._consumed = {}
        self._generation += 1
        self._drop_flight()
        effects = Effects(changed=True)
        if self.state is RunState.running:
            effects = self._leave(RunState.hold, "time_jump: ROS time went back")
        self._count_from_here()
        return replace(effects, reset_history=True)

    def _since_s(self, then_ns: int) -> float:
        return (self._clock.monotonic_ns() - then_ns) / NANOSECONDS

    # Decisions

    def _is_complete(self) -> bool:
        """Whether every topic has a sample newer than the last one used, all of one instant."""
        stamps = self._intake.samples.stamps(self._intake.required)
        if len(stamps) < len(self._intake.required) or len(set(stamps.values())) != 1:
            return False
        return all(stamp > self._consumed.get(topic, -1) for topic, stamp in stamps.items() if topic in self._intake.observed)

    def _ask(self) -> Effects:
        try:
            observation = self._intake.observation()
        except UNUSABLE as error:
            return self._unusable(str(error) or type(error).__name__)
        self._run.unusable = 0
        self._consumed = self._intake.samples.stamps(self._intake.observed)
        self._number += 1
        self._run.requests += 1
        self.counts["requests"] += 1
        request = Request(observation=observation, stamps=dict(self._consumed), number=self._number, generation=self._generation)
        self._flight = _Flight(request=request, asked_ns=self._clock.monotonic_ns())
        return Effects(request=request)

    def _drop_flight(self) -> None:
        """An answer that will not be used leaves its samples unused."""
        if self._flight is not None:
            self._flight, self._consumed = None, {}

    def _unusable(self, why: str) -> Effects:
        self.counts["unusable"] += 1
        self._run.unusable += 1
        if self._settings.lockstep or self._run.unusable >= self._settings.max_consecutive_rejections:
            return self._leave(RunState.hold, f"rejected: {why}")
        return NOTHING

    def _skewed(self) -> Effects:
        self.counts["skewed"] += 1
        self._run.skewed += 1
        if self._run.skewed < self._settings.max_consecutive_misses:
            return NOTHING
        skew = self._intake.samples.skew_s(self._intake.observed)
        return self._leave(RunState.hold, f"skew: stamps of one observation are {skew:.3f} s apart; synchronise the clocks")

    def _miss(self) -> Effects:
        self.counts["misses"] += 1
        self._run.misses += 1
        if self._run.misses < self._settings.max_consecutive_misses:
            return NOTHING
        return self._leave(RunState.hold, f"inference_late: {self._run.misses} control periods in a row")

    def _act(self, answer: Decided) -> Effects:
        self._run.misses = 0
        action = np.asarray(answer.action, np.float64)
        if action.shape != (len(self._spec),) or not np.isfinite(action).all():
            self.counts["non_finite"] += 1
            return self._strike(f"bad_action: expected {len(self._spec)} finite numbers, found {action.tolist()}")
        if why := self._too_little(answer.value):
            self.counts["below_min_value"] += 1
            asks = self._settings.below_min_value is BelowMinValue.ask
            return self._leave(RunState.paused if asks else RunState.hold, why)
        try:
            command = self._to_command(self._as_logged(action))
        except QTransformerError as error:  # out of reach, for instance
            return self._refuse(str(error))
        except Exception as error:  # a defect, and no reason to let an arm go on
            return self._fault(f"fault: an action became no command: {type(error).__name__}: {error}")
        found = restrict(command, self._limits, self._intake.measured(self._run.velocities), self._settings.period_s)
        if isinstance(found, Refusal):
            self.counts["non_finite" if found.not_finite else "refused"] += 1
            return self._strike(f"bad_action: {found.reason}") if found.not_finite else self._refuse(found.reason)
        self._strikes = 0
        self._flight = None
        self._run.velocities = dict(found.velocities)
        self.clamps.update(clamp.kind for clamp in found.clamps)
        self.counts["commands"] += 1
        return Effects(command=None if self._settings.dry_run else found.command, proposed=found.command)

    def _as_logged(self, action: np.ndarray) -> np.ndarray:
        """Within the action's own limits, and as it comes back from scaling: what `qtransformer eval` gives an environment."""
        clipped = np.clip(action, self._spec.low, self._spec.high)
        self.clamps["action"] += int((clipped != action).sum())
        return self._spec.to_units(self._spec.to_scaled(clipped))

    def _too_little(self, value: float | None) -> str:
        least = self._settings.min_value
        if least is None or (value is not None and value >= least):  # NaN is less than anything
            return ""
        return f"low_value: the policy expects a return of {value}, below {least:g}"

    def _refuse(self, reason: str) -> Effects:
        return self._leave(RunState.hold, f"limits: {reason}")

    def _strike(self, reason: str) -> Effects:
        self._strikes += 1
        if self._strikes >= MAX_STRIKES:
            return self._fault(f"{reason} ({self._strikes} in a row)")
        return self._leave(RunState.hold, reason)

    def _fault(self, reason: str) -> Effects:
        self._faulted = True
        return self._leave(RunState.fault, reason)

"""The control loop of a deployed policy as a state machine with an injected clock: no ROS, no threads, no waiting.

A node feeds it messages and time; it answers with effects: an observation to decide on, a command to send, a hold. Every failure
row of the project's fault table that concerns a running policy is decided here, or in what it is made of: `intake` and
`observation_watch` (what comes in), `decision_requests` (when to ask the network), `action_gate` and `motion_watch` (what may go
out), `estop`.
All events must come from one thread.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError
from qtransformer.types import ActionSpec
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.motion import Command
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.arm.safety_limits import SafetyLimits, refusal_to_change
from qtransformer_ros.control.action_gate import ActionGate, Consequence, Rejection
from qtransformer_ros.control.buffer import Clock
from qtransformer_ros.control.decision_requests import DecisionRequests
from qtransformer_ros.control.effects import NOTHING, DecidedAction, Effects, Request
from qtransformer_ros.control.estop import EstopLatch
from qtransformer_ros.control.intake import Intake
from qtransformer_ros.control.motion_watch import MotionWatch
from qtransformer_ros.control.observation_watch import ObservationWatch
from qtransformer_ros.control.run_state import RunState, Snapshot
from qtransformer_ros.control.runtime_settings import RuntimeSettings

MAX_STRIKES = 3
"""Unusable actions in a row that make a fault."""
COMMAND_LASTS = 1.5
"""Control periods after which a joint that had no further command stands: one that it moves, and some for the next one's delay."""
BACKWARD_NS = 50_000_000
"""ROS time may be slewed back by less than this without having jumped."""


class PolicyRuntime:
    """See the module docstring.

    Events: `receive(topic, message)`, `tick()` (once per control period, or in lockstep whenever a sample came), `watch()` (at the
    command rate: time-outs), `decided(answer)`, `failed(error)` (inference raised), `broke(error)` (anything else of ours did),
    `activate()`, `deactivate()`, `start()`, `stop()`, `reset()`, `estop(pressed)` (the service), `estop_heard(pressed)` (the
    topic), `enable_motion(enabled)`, `listeners(count)` (subscribers of the command topic; until told, there are none),
    `rivals(count)` (its other publishers). Each returns `Effects`.

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
        base_frame: str = "",
        has_values: bool = True,
        instruction: str = "",
    ) -> None:
        """`to_command` turns an action (n,) in robot units into a command; `joint_topic` (JointState) and `pose_topic`
        (PoseStamped, in `base_frame`) are where the limits' joints and the tool are measured; `has_values` is False for a cloned
        policy."""
        if settings.min_value is not None and not has_values:
            raise ConfigError("min_value needs a policy with values, and this one was cloned (algo=bc): remove the threshold")
        if limits.joints and not joint_topic:
            raise ConfigError("joints are limited, and no topic measures them: give the topic of their JointState")
        if limits.has_workspace and not pose_topic:
            raise ConfigError("the workspace is limited, and no topic measures the tool: give the topic of its PoseStamped")
        self.state, self.reason = RunState.idle, "inactive: not activated"
        self.counts: Counter[str] = Counter()
        self._settings, self._clock, self._to_command = settings, clock, to_command
        self._intake = Intake(
            contract,
            clock,
            joints=tuple(limits.joints),
            joint_topic=joint_topic if limits.joints else "",
            pose_topic=pose_topic,
            base_frame=base_frame,
            instruction=instruction,
            require_stamps=settings.require_stamps,
            max_identical=settings.max_identical_images,
            lockstep=settings.lockstep,
            joint_timeout_s=settings.joint_timeout_s,
        )
        self._watch = ObservationWatch(self._intake, settings)
        self._decisions = DecisionRequests(self._intake, self._watch, settings, clock, self.counts)
        self._gate = ActionGate(action_spec, limits, settings)
        untimed = settings.lockstep or settings.dry_run
        self._motion_watch = MotionWatch(clock, 0.0 if untimed else settings.unmoved_timeout_s, settings.period_s)
        self._estop = EstopLatch(clock, settings.estop_timeout_s)
        self._latest_ros_ns = clock.ros_ns()
        self._strikes = self._commanded_ns = 0
        self._auto_start = False
        """Whether a hold is only the wait for first samples."""
        self._asked = False
        """Whether a person is asked about an action of little value, and has not answered."""
        self._active = self._faulted = False
        self._motion_enabled, self._subscribers, self._other_publishers = True, 0, 0

    @property
    def limits(self) -> SafetyLimits:
        return self._gate.limits

    @property
    def clamps(self) -> Counter[str]:
        """How often which limit was hit."""
        return self._gate.clamps

    @property
    def measured(self) -> Measured:
        """Where the arm was last seen: a hold is made of it."""
        return self._intake.measured()

    @property
    def is_estopped(self) -> bool:
        return self._estop.latched

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
        self._estop.update(bool(pressed))
        return self._latch("estop: pressed") if pressed else NOTHING

    def enable_motion(self, enabled: bool) -> Effects:
        """The robot's own word on whether it may be moved."""
        self._motion_enabled = bool(enabled)
        if enabled or self.state not in (RunState.running, RunState.hold):
            return NOTHING
        return self._leave(RunState.paused, "motion_disabled: the robot said so")

    def listeners(self, count: int) -> Effects:
        """How many subscribe to the topic of commands."""
        self._subscribers = count
        return self._give_way()

    def rivals(self, count: int) -> Effects:
        """How many others publish on the topic of commands."""
        self._other_publishers = count
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
        if not self._settings.lockstep and (effects := self._complain()).changed:
            return effects
        asked = self._decisions.ask()
        return Effects(request=asked) if isinstance(asked, Request) else self._hold_for(asked)

    def watch(self) -> Effects:
        """Look at every time-out, and whether a hold has passed."""
        effects = self._check_time()
        if effects.changed:
            return effects
        if why := self._estop.reason_to_latch():
            return self._latch(why)
        if self.state is RunState.running:
            return self._complain()
        return self._recover() if self.state is RunState.hold else NOTHING

    # What comes from the network

    def decided(self, answer: DecidedAction) -> Effects:
        """An answer: a command, if it is the answer to the newest request, in time, finite and within all limits."""
        if not self._decisions.receive(answer):  # only RUNNING waits for one
            return NOTHING
        if self._decisions.is_late():
            return self._hold_for(self._decisions.drop())
        if (effects := self._complain()).changed:
            return effects
        return self._act(answer)

    def failed(self, error: BaseException) -> Effects:
        """Inference raised."""
        return self._strike_if_running("inference_failed", error)

    def broke(self, error: BaseException) -> Effects:
        """A defect of ours: something around the policy raised."""
        return self._strike_if_running("internal_error", error)

    # What comes from people

    def activate(self) -> Effects:
        self._active = True
        self._estop.watch()
        if self._estop.latched:
            return self._enter(RunState.estop, "estop: pressed before activation")
        if self._faulted:
            return self._enter(RunState.fault, "fault: not reset")
        if self._settings.start_paused:
            return self._enter(RunState.paused, "waiting: for start")
        self._auto_start = True
        effects = self._enter(RunState.hold, "waiting: for first samples")
        self._watch.count_all()
        begun = self._recover()
        return begun if begun.changed else effects

    def deactivate(self) -> Effects:
        self._active = self._estop.watched = False
        return self._leave(RunState.idle, f"inactive: deactivated{', with the e-stop latched' if self._estop.latched else ''}")

    def start(self) -> Effects:
        """Run, from PAUSED or HOLD, if nothing speaks against it. Who was asked about a low value has answered with this."""
        if self.state is RunState.running:
            return NOTHING
        if self.state not in (RunState.paused, RunState.hold):
            return Effects(refused=f"cannot start: {self.state.value} ({self.reason})")
        if why := self._blocked() or self._watch.complaint():
            return Effects(refused=f"cannot start: {why}")
        self._gate.excused, self._asked = self._asked, False
        return self._begin()

    def stop(self) -> Effects:
        """Hold, and wait for `start`."""
        if self.state not in (RunState.running, RunState.hold):
            return NOTHING
        return self._leave(RunState.paused, "stopped: by request")

    def reset(self) -> Effects:
        """Forget the episode, and a fault."""
        self._decisions.begin_episode()
        self._gate.velocities = {}  # the arm may have been put elsewhere
        self._gate.excused = self._asked = False
        self._intake.forget_forms()
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
        if not self._estop.latched:
            return NOTHING
        if why := self._estop.release():
            return Effects(refused=f"cannot unlatch: {why}")
        if not self._active:
            return self._enter(RunState.idle, "inactive: not activated")
        if self._faulted:
            return self._enter(RunState.fault, "fault: not reset")
        return self._enter(RunState.paused, "waiting: for start, after an e-stop")

    def change_limits(self, limits: SafetyLimits) -> str:
        """Take other limits of the same joints; "" or why not."""
        why = self.refusal_of(limits)
        if not why:
            self._gate.limits = limits
        return why

    def refusal_of(self, limits: SafetyLimits) -> str:
        """Why other limits would not be taken now: while running, limits are only ever tightened. "" if they would."""
        return refusal_to_change(self.limits, limits, running=self.state is RunState.running)

    def complaint(self) -> str:
        """The first thing that cannot be trusted now, and why; "" if decisions could be made."""
        return self._watch.complaint()

    def look(self) -> Request | None:
        """What would be decided on now, to judge other policies' actions by; None where it is not complete or not fresh."""
        return None if self._watch.complaint() else self._decisions.look()

    def snapshot(self) -> Snapshot:
        samples = self._intake.samples
        topics: dict[str, dict[str, int]] = {topic: {} for topic in self._intake.required}
        for (topic, what), count in self._intake.counts.items():
            topics.setdefault(topic, {})[what] = count
        times = np.array(self._decisions.seconds) * 1e3
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
            self._watch.count_from_here()
        self._auto_start = self._asked = False
        self._decisions.abandon()
        self._enter(state, reason)
        # A robot that waits stands already, and would take a hold for a part of the next command.
        return Effects(hold=moved and not self._settings.dry_run and not self._settings.lockstep, changed=True)

    def _hold_for(self, why: str) -> Effects:
        """HOLD, if there is a reason to."""
        return self._leave(RunState.hold, why) if why else NOTHING

    def _begin(self) -> Effects:
        self._decisions.begin()
        self._motion_watch.forget()
        self._gate.velocities = {}  # the arm stands
        self._auto_start = False
        self._enter(RunState.running, "")
        request = self.tick().request if self._settings.lockstep else None
        return Effects(reset_history=True, request=request, changed=True)

    def _latch(self, reason: str) -> Effects:
        if self._estop.latched:
            return NOTHING
        self._estop.latch()
        return self._leave(RunState.estop, reason)

    def _recover(self) -> Effects:
        """Out of a hold whose cause has passed."""
        # A simulator that waits sends one set of samples, and no more before it is answered.
        lockstep = self._settings.lockstep
        least = 1 if self._auto_start or lockstep else self._settings.fresh_frames_to_resume
        if self._blocked() or self._watch.complaint() or not self._watch.is_fresh(least):
            return NOTHING
        if not lockstep and self._watch.is_skewed():
            return NOTHING
        if self._settings.auto_resume or self._auto_start:
            return self._begin()
        return self._leave(RunState.paused, f"waiting: for start, after {self.reason}")

    # What speaks against running

    def _blocked(self) -> str:
        if self._estop.is_unheard():
            return "estop_unheard: its topic, which must be heard, has said nothing yet"
        if not self._motion_enabled:
            return "motion_disabled: the robot said so"
        if not self._subscribers and not self._settings.dry_run:
            return "no_listener: nobody subscribes to the commands"
        if self._other_publishers and not self._settings.dry_run:
            return f"rival: {self._other_publishers} other publisher(s) command the arm, and only one may: stop the other"
        return ""

    def _complain(self) -> Effects:
        return self._hold_for(self._watch.complaint()) if self.state is RunState.running else NOTHING

    def _is_over(self) -> bool:
        limit = self._settings.max_episode_s
        return bool(limit) and self._decisions.lasted_s >= limit

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
        self._decisions.forget()
        effects = Effects(changed=True)
        if self.state is RunState.running:
            effects = self._leave(RunState.hold, "time_jump: ROS time went back")
        self._watch.count_from_here()
        return replace(effects, reset_history=True)

    # Decisions

    def _act(self, answer: DecidedAction) -> Effects:
        measured = self._intake.measured(self._commanded_velocities())
        found = self._gate.check(answer, self._to_command, measured)
        if isinstance(found, Rejection):
            return self._reject(found)
        if why := self._motion_watch.complaint(found.command.motion, measured):
            return self._hold_for(why)
        self._strikes, self._commanded_ns = 0, self._clock.monotonic_ns()
        self._decisions.settle()
        self.counts["commands"] += 1
        return Effects(command=None if self._settings.dry_run else found.command, proposed=found.command)

    def _commanded_velocities(self) -> dict[str, float]:
        """What the joints were last commanded to, while they do it: a command lasts for one period, and then the arm stands."""
        since_s = (self._clock.monotonic_ns() - self._commanded_ns) / NANOSECONDS
        is_over = not self._settings.lockstep and since_s > COMMAND_LASTS * self._settings.period_s
        return {} if is_over else self._gate.velocities

    def _reject(self, rejection: Rejection) -> Effects:
        if rejection.count:
            self.counts[rejection.count] += 1
        if rejection.consequence is Consequence.strike:
            return self._strike(rejection.reason)
        if rejection.consequence is Consequence.fault:
            return self._fault(rejection.reason)
        asks = rejection.consequence is Consequence.ask
        effects = self._leave(RunState.paused if asks else RunState.hold, rejection.reason)
        self._asked = asks
        return effects

    def _strike_if_running(self, word: str, error: BaseException) -> Effects:
        if self.state is not RunState.running:
            return NOTHING
        return self._strike(f"{word}: {type(error).__name__}: {error}")

    def _strike(self, reason: str) -> Effects:
        self._strikes += 1
        if self._strikes >= MAX_STRIKES:
            return self._fault(f"{reason} ({self._strikes} in a row)")
        return self._leave(RunState.hold, reason)

    def _fault(self, reason: str) -> Effects:
        self._faulted = True
        return self._leave(RunState.fault, reason)

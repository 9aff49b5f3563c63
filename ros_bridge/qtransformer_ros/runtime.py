"""The control loop of a deployed policy as a state machine with an injected clock: no ROS, no threads, no waiting.

A node feeds it messages and time; it answers with effects: an observation to decide on, a command to send, a hold. Every failure
row of the project's fault table that concerns a running policy is decided here.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np

from qtransformer.types import Observation
from qtransformer_ros.motion import Command


class Clock(Protocol):
    def monotonic_ns(self) -> int:
        """Never jumps: ages and time-outs go by it."""
        ...

    def ros_ns(self) -> int:
        """ROS time, simulated or not: may jump."""
        ...


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
    """What the node has to do after an event; nothing by default."""

    request: Request | None = None
    """Give this to the network, instead of any that waits."""
    command: Command | None = None
    """Publish this."""
    hold: bool = False
    """Publish a hold at the measured pose, then nothing more."""
    reset_history: bool = False
    """Make the policy forget its episode before the next request."""
    changed: bool = False
    """State or reason changed: publish the status."""


class PolicyRuntime:
    """See the module docstring. Built by `PolicyRuntime(contract, action_spec, limits, settings, clock)`.

    Events: `receive(topic, message)`, `tick()` (once per control period, or in lockstep whenever a sample came), `watch()` (at the
    command rate: time-outs), `decided(answer)`, `failed(error)` (inference raised), `activate()`, `deactivate()`, `start()`,
    `reset()`, `estop(pressed)`, `enable_motion(enabled)`, `listeners(count)` (subscribers of the command topic). Each returns `Effects`.
    """

    def receive(self, topic: str, message: Any) -> Effects: ...

    def tick(self) -> Effects: ...

    def watch(self) -> Effects: ...

    def decided(self, answer: Decided) -> Effects: ...

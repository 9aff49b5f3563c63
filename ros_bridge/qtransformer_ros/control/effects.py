"""What goes back and forth between a policy's runtime and the node around it: requests, answers, effects."""

from dataclasses import dataclass

import numpy as np

from qtransformer.types import Observation
from qtransformer_ros.arm.motion import Command


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
    acted_on: int = 0
    """Number of the newest request whose answer was carried out; 0: none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedAction:
    """What the network answered to a request: an action, what it expects of it, how long that took."""

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

"""The words every room shares: what a robot sees, what it does, and what was logged.

Letters of tensor dimensions, used in every jaxtyping signature of the project:

    b batch              t time (consecutive frames)     w history window     n action dimensions    a action bins
    v value bins         s tokens                        e embedding          p proprioception       c h w image

An observation is a plain dictionary, the same for simulator, robot, dataset and policy:

    {
        "images":      {camera name: uint8 array (h, w, 3), RGB},
        "proprio":     float32 array (p,), in the units of `ObservationSpec.proprio_units`,
        "instruction": str (optional; "" if absent),
    }
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import numpy as np
from typing_extensions import NotRequired

from qtransformer.errors import SpecMismatchError


class Observation(TypedDict):
    """What a policy is given at one control step; see the module docstring."""

    images: Mapping[str, np.ndarray]
    proprio: np.ndarray
    instruction: NotRequired[str]


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """The dimensions of an action, in the order in which the Q-Transformer decides them.

    Files and networks speak scaled actions in [-1, 1]; policies and environments speak robot units. This class is the only
    place that translates between the two.
    """

    names: tuple[str, ...]
    """One name per dimension, for instance `("dx", "dy", "dz", "dyaw", "gripper", "terminate")`."""
    low: tuple[float, ...]
    """Lower limit per dimension, in `units`."""
    high: tuple[float, ...]
    """Upper limit per dimension, in `units`."""
    units: tuple[str, ...]
    """Unit per dimension: `"m"`, `"rad"`, or `"1"` for dimensionless switches."""
    discrete: tuple[int, ...]
    """Number of distinct values of a dimension that is a switch (2 for open/close), 0 where it is continuous."""

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.low), len(self.high), len(self.units), len(self.discrete)}
        if len(lengths) != 1 or not self.names:
            raise SpecMismatchError(f"an ActionSpec needs one entry per dimension in every field, found {self}")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise SpecMismatchError(f"action dimension '{name}' needs finite limits low < high, found [{low}, {high}]")

    def __len__(self) -> int:
        return len(self.names)

    def to_scaled(self, action: np.ndarray) -> np.ndarray:
        """Robot units to [-1, 1]. Shape (..., n) to (..., n) float32."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return (2.0 * (np.asarray(action, np.float64) - low) / (high - low) - 1.0).astype(np.float32)

    def to_units(self, scaled: np.ndarray) -> np.ndarray:
        """[-1, 1] to robot units. Shape (..., n) to (..., n) float32."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return (low + (np.asarray(scaled, np.float64) + 1.0) * 0.5 * (high - low)).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {k: list(getattr(self, k)) for k in ("names", "low", "high", "units", "discrete")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ActionSpec":
        return cls(
            names=tuple(str(x) for x in data["names"]),
            low=tuple(float(x) for x in data["low"]),
            high=tuple(float(x) for x in data["high"]),
            units=tuple(str(x) for x in data["units"]),
            discrete=tuple(int(x) for x in data["discrete"]),
        )


@dataclass(frozen=True, slots=True)
class ObservationSpec:
    """Which cameras and which proprioception an environment gives and a policy expects; matched by name, never by order."""

    cameras: Mapping[str, tuple[int, int, int]]
    """Camera name to image shape (h, w, 3)."""
    proprio_names: tuple[str, ...]
    """One name per proprioceptive value."""
    proprio_units: tuple[str, ...]
    """One unit per proprioceptive value."""
    control_hz: float
    """Rate at which actions are chosen [Hz]."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "cameras": {name: list(shape) for name, shape in self.cameras.items()},
            "proprio_names": list(self.proprio_names),
            "proprio_units": list(self.proprio_units),
            "control_hz": self.control_hz,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ObservationSpec":
        return cls(
            cameras={str(k): (int(v[0]), int(v[1]), int(v[2])) for k, v in data["cameras"].items()},
            proprio_names=tuple(str(x) for x in data["proprio_names"]),
            proprio_units=tuple(str(x) for x in data["proprio_units"]),
            control_hz=float(data["control_hz"]),
        )


def rename_hint(expected: ObservationSpec, found: ObservationSpec) -> str:
    """How to make the cameras of `found` those of `expected`; empty where their names agree or their shapes cannot be matched."""
    missing = {name: shape for name, shape in expected.cameras.items() if name not in found.cameras}
    spare = {name: shape for name, shape in found.cameras.items() if name not in expected.cameras}
    if not missing and not spare:
        return ""
    chosen = {name: name for name in expected.cameras if name in found.cameras}
    for name, shape in missing.items():
        match = next((other for other, there in spare.items() if there == shape), None)
        if match is None:
            return ""
        del spare[match]
        chosen[name] = match
    pairs = ",".join(f"{new}:{old}" for new, old in chosen.items())
    return f"if only the names differ, rename: cameras={{{pairs}}} (new:old, all others dropped) is an option of every dataset"


@dataclass(slots=True, kw_only=True)
class Episode:
    """One episode of T steps. Arrays that describe the world have T + 1 rows: the observation after the last action is kept."""

    images: dict[str, np.ndarray]
    """Camera name to uint8 (T + 1, h, w, 3), RGB."""
    proprio: np.ndarray
    """float32 (T + 1, p)."""
    actions: np.ndarray
    """float32 (T, n), scaled to [-1, 1] by `ActionSpec.to_scaled`."""
    rewards: np.ndarray
    """float32 (T,)."""
    terminated: np.ndarray
    """bool (T,); only the last entry may be true. A terminated step has no future: it is not bootstrapped."""
    truncated: np.ndarray
    """bool (T,); only the last entry may be true. A time limit: it is bootstrapped from the final observation."""
    timestamps: np.ndarray | None = None
    """float64 (T + 1,) [s], strictly increasing: when each observation was made. None where the log holds no times: steps then
    are 1 / control_hz apart."""
    instruction: str = ""
    """What the robot was asked to do."""
    success: bool = False
    """Whether the task was achieved."""
    has_final_observation: bool = True
    """False where a log lost the observation after the last action: row T then repeats row T - 1 and a truncated last step
    is masked from bootstrapped targets."""
    info: dict[str, Any] = field(default_factory=dict)
    """Free JSON-able provenance: seed, policy, noise mode."""

    def __len__(self) -> int:
        return len(self.actions)


class Env(Protocol):
    """What collection and evaluation need of an environment: Gymnasium's step and reset, and the two specs."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action in robot units; `info["success"]` tells whether the task is achieved."""
        ...

    def close(self) -> None: ...


class Actor(Protocol):
    """Anything that acts: a `Policy`, a scripted expert, a random baseline."""

    def reset(self) -> None: ...

    def act(self, observation: Any) -> np.ndarray:
        """Choose an action in robot units, shape (n,)."""
        ...


class EpisodeSource(Protocol):
    """Logged episodes with the specs they were logged under."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Episode]: ...

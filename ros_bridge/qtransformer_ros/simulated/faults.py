"""What real sensors do to a robot now and then, on demand: every row of the fault table that begins at the robot can be played."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qtransformer_sim.controller import GripperPose


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmState:
    """What an arm measures of itself at one time."""

    joints: np.ndarray
    """float64 (j,) [rad]."""
    numbers: Mapping[str, float]
    """The proprioception that no joint has, by name."""
    tool: GripperPose


class Faults:
    """Damages samples before they are published. Settings are given with each call: they change while the robot runs."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._frozen: dict[str, tuple[int, np.ndarray]] = {}
        self._stuck: ArmState | None = None

    def drops(self, probability: float) -> bool:
        """Whether the next sample is lost."""
        return bool(self._rng.random() < probability)

    def state(self, state: ArmState, *, stick: bool = False) -> ArmState:
        """What is measured; stuck: what was before, to be sent under new stamps."""
        if not stick or self._stuck is None:
            self._stuck = state
        return self._stuck

    def joints(
        self, names: tuple[str, ...], positions: np.ndarray, *, noise: float = 0.0, nan: str = "", shuffle: bool = False
    ) -> tuple[list[str], list[float]]:
        """Names and positions (j,) [rad] with Gaussian noise of that deviation [rad], one joint as NaN, in a random order."""
        values = positions + noise * self._rng.standard_normal(len(positions))
        values[[name == nan for name in names]] = np.nan
        order = self._rng.permutation(len(names)) if shuffle else np.arange(len(names))
        return [names[i] for i in order], values[order].tolist()

    def image(
        self, camera: str, stamp_ns: int, image: np.ndarray, *, freeze: bool = False, stick: bool = False
    ) -> tuple[int, np.ndarray]:
        """Stamp and image of a camera. Frozen: the last ones from before, again; stuck: the last image under new stamps."""
        if not (freeze or stick):
            self._frozen[camera] = (stamp_ns, image)
        old_ns, old = self._frozen.setdefault(camera, (stamp_ns, image))
        return (old_ns if freeze else stamp_ns), old

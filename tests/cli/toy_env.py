"""An environment from elsewhere: no simulator, no camera but the one the toy dataset has."""

from dataclasses import replace
from typing import Any

import numpy as np

from tests.cli.console import ACTION, OBSERVATION


class Undescribed:
    """Says nothing of its actions and observations."""

    def close(self) -> None:
        pass


class ToyEnv:
    """Succeeds when closed; ends after `max_steps`."""

    action_spec = ACTION

    def __init__(self, max_steps: int = 5, camera: str = "wrist", blind: bool = False) -> None:
        self.max_steps, self.camera, self.blind = max_steps, camera, blind
        self.observation_spec = replace(OBSERVATION, cameras={camera: (16, 16, 3)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.rng, self.steps = np.random.default_rng(seed), 0
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        success = bool(action[1] > 0.5 and self.rng.random() < 0.5)
        return self._observe(), float(success), success, self.steps >= self.max_steps, {"success": success}

    def close(self) -> None:
        pass

    def _observe(self) -> dict[str, Any]:
        proprio = self.rng.normal(size=2).astype(np.float32)
        images = {self.camera: self.rng.integers(0, 256, (16, 16, 3), np.uint8)}
        return {"images": images, "proprio": proprio * (np.nan if self.blind else 1), "instruction": ""}

"""Small random episodes, and a source of them, for the tests of every room."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from qtransformer.types import ActionSpec, Episode, ObservationSpec

ACTION_SPEC = ActionSpec(names=("dx", "gripper"), low=(-0.05, 0.0), high=(0.05, 1.0), units=("m", "1"), discrete=(0, 2))
OBSERVATION_SPEC = ObservationSpec(
    cameras={"wrist": (6, 8, 3)}, proprio_names=("x", "y", "z"), proprio_units=("m", "m", "m"), control_hz=10.0
)


def make_episode(
    length: int = 4,
    seed: int = 0,
    *,
    end: str = "terminated",
    success: bool | None = None,
    action_spec: ActionSpec = ACTION_SPEC,
    observation_spec: ObservationSpec = OBSERVATION_SPEC,
    **changes: Any,
) -> Episode:
    """A random episode whose reward is 1 at its last step if it succeeds; `changes` replaces fields."""
    rng = np.random.default_rng(seed)
    success = end == "terminated" if success is None else success
    last = np.arange(length) == length - 1
    fields: dict[str, Any] = {
        "images": {
            camera: rng.integers(0, 256, (length + 1, *shape), np.uint8) for camera, shape in observation_spec.cameras.items()
        },
        "proprio": rng.normal(size=(length + 1, len(observation_spec.proprio_names))).astype(np.float32),
        "actions": rng.uniform(-1, 1, (length, len(action_spec))).astype(np.float32),
        "rewards": (last & success).astype(np.float32),
        "terminated": last & (end in ("terminated", "both")),
        "truncated": last & (end in ("truncated", "both")),
        "instruction": "pick up the red cube",
        "success": success,
        "info": {"seed": seed},
    }
    return Episode(**(fields | changes))


class ListSource:
    """An `EpisodeSource` that knows nothing but the protocol."""

    def __init__(
        self,
        episodes: list[Episode],
        action_spec: ActionSpec = ACTION_SPEC,
        observation_spec: ObservationSpec = OBSERVATION_SPEC,
    ) -> None:
        self.action_spec, self.observation_spec, self._episodes = action_spec, observation_spec, episodes

    def __len__(self) -> int:
        return len(self._episodes)

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)

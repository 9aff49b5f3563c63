"""A synthetic robot unlike the simulator's, for checks of formats and training: 7 joints, a gripper, two cameras.

    python benchmarks/other_robot.py out=data/other_robot.hdf5 episodes=8

The arm is shown seven joint angles and turns towards them; when it is there, it closes its gripper, and that is a success. Every
second episode hesitates and runs out of time. Images show all there is to know, so a training that fits needs its eyes.
"""

import sys
from pathlib import Path

import numpy as np

import command_line
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets import HDF5Writer

JOINTS = 7
MOST_TURN = 0.2
"""Of a joint in one step [rad]."""
REACHED = 0.05
"""Error of every joint under which the gripper closes [rad]."""
MAX_STEPS = 20

ACTION = ActionSpec(
    names=(*(f"joint_{i + 1}" for i in range(JOINTS)), "gripper"),
    low=(*(-MOST_TURN,) * JOINTS, 0.0),
    high=(*(MOST_TURN,) * JOINTS, 1.0),
    units=(*("rad",) * JOINTS, "1"),
    discrete=(*(0,) * JOINTS, 2),
)
OBSERVATION = ObservationSpec(
    cameras={"front": (48, 64, 3), "wrist": (32, 32, 3)},
    proprio_names=(*(f"joint_{i + 1}" for i in range(JOINTS)), "opening"),
    proprio_units=(*("rad",) * JOINTS, "m"),
    control_hz=10.0,
)


def make_episode(seed: int, hesitates: bool = False) -> Episode:
    """From random angles to random goals. One that hesitates rests in half of its steps."""
    rng = np.random.default_rng(seed)
    angles, goals = rng.uniform(-1, 1, (2, JOINTS))
    seen, proprio, actions = [_look(angles, goals, False)], [np.array([*angles, 0.08])], []
    closed = False
    while not closed and len(actions) < MAX_STEPS:
        turn = np.clip(goals - angles, -MOST_TURN, MOST_TURN) * float(not (hesitates and rng.random() < 0.5))
        closed = bool(np.abs(goals - angles).max() < REACHED and not hesitates)
        actions.append([*turn, float(closed)])
        angles = angles + turn
        seen.append(_look(angles, goals, closed))
        proprio.append(np.array([*angles, 0.0 if closed else 0.08]))
    last = np.arange(len(actions)) == len(actions) - 1
    return Episode(
        images={name: np.stack([images[name] for images in seen]) for name in OBSERVATION.cameras},
        proprio=np.array(proprio, np.float32),
        actions=ACTION.to_scaled(np.array(actions)),
        rewards=(last & closed).astype(np.float32),
        terminated=last & closed,
        truncated=last & (not closed),
        instruction="turn to the marks and close",
        success=closed,
        info={"seed": seed},
    )


def main(out: str = "data/other_robot.hdf5", episodes: int = 8) -> None:
    """Successes and failures in turn."""
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with HDF5Writer(path, ACTION, OBSERVATION, {"robot": "seven joints, synthetic"}) as writer:
        for seed in range(episodes):
            writer.append(make_episode(seed, hesitates=seed % 2 == 1))


def _look(angles: np.ndarray, goals: np.ndarray, closed: bool) -> dict[str, np.ndarray]:
    """The front camera sees angles (red) above goals (green) as marks on a scale; the wrist sees errors, and the gripper."""
    front, wrist = np.full((48, 64, 3), 30, np.uint8), np.full((32, 32, 3), 60, np.uint8)
    for joint in range(JOINTS):
        for values, row, channel in ((angles, 6 * joint + 3, 0), (goals, 6 * joint + 6, 1)):
            column = int(np.clip(32 + 28 * values[joint] / 1.2, 0, 60))
            front[row : row + 3, column : column + 4, channel] = 255
        error = float(np.clip(goals[joint] - angles[joint], -1, 1))
        wrist[4 * joint : 4 * joint + 4, : 1 + round(30 * abs(error)), 0 if error < 0 else 1] = 230
    wrist[28:, :, 2] = 255 if closed else 0
    return {"front": front, "wrist": wrist}


if __name__ == "__main__":
    sys.exit(command_line.run(main))

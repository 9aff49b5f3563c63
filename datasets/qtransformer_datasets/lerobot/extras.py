"""What LeRobot has no place for, beside a dataset in a folder that LeRobot ignores, so that nothing is lost on the way:

    qtransformer/specs.json          action spec, observation spec, attributes
    qtransformer/episodes.parquet    one row per episode: actions as logged (scaled), true times, how it ended, the observation
                                     after the last action, info

Without that folder the rest is an ordinary LeRobotDataset.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from qtransformer.errors import DatasetError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.parts import plain_json
from qtransformer_datasets.lerobot.episode_rows import EPISODE, RowRange, index_rows
from qtransformer_datasets.lerobot.image_bytes import decode_image, encode_png
from qtransformer_datasets.lerobot.layout import Layout, read_json
from qtransformer_datasets.lerobot.parquet_guard import numbers, values

SPECS, EPISODES = "qtransformer/specs.json", "qtransformer/episodes.parquet"
FORMAT_VERSION = 1
_FINAL_IMAGE = "final_image/"


@dataclass(frozen=True, slots=True)
class Extras:
    """Where the extras of a dataset lie, and what holds for all of it."""

    action_spec: ActionSpec
    observation_spec: ObservationSpec
    attributes: dict[str, Any]
    rows: dict[int, RowRange]


def find_extras(layout: Layout) -> Extras | None:
    """None where the dataset was not written by us."""
    if not (layout.root / SPECS).exists():
        return None
    path = layout.inside(SPECS)
    kept = read_json(path)
    try:
        specs = ActionSpec.from_dict(kept["action_spec"]), ObservationSpec.from_dict(kept["observation_spec"])
        attributes = dict(kept["attributes"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DatasetError(f"{path}: its specs cannot be read ({error!r}); restore the file from its source") from error
    return Extras(*specs, attributes, index_rows([layout.inside(EPISODES)]))


def extras_columns(cameras: Sequence[str]) -> list[str]:
    names = [EPISODE, "actions", "timestamps", "success", "terminated", "truncated", "final_state", "info"]
    return names + [_FINAL_IMAGE + camera for camera in cameras]


def extras_row(episode: Episode, index: int, where: str) -> pa.Table:
    """The row of an episode."""
    has_final = episode.has_final_observation
    row = {
        EPISODE: pa.array([index], pa.int64()),
        "actions": pa.array([episode.actions.ravel()], pa.list_(pa.float32())),
        "timestamps": pa.array([episode.timestamps], pa.list_(pa.float64())),
        "success": pa.array([bool(episode.success)]),
        "terminated": pa.array([bool(episode.terminated[-1])]),
        "truncated": pa.array([bool(episode.truncated[-1])]),
        "final_state": pa.array([episode.proprio[-1] if has_final else None], pa.list_(pa.float32())),
        "info": pa.array([json.dumps(plain_json(episode.info, f"{where}: info"))]),
    }
    images = {_FINAL_IMAGE + camera: encode_png(rows[-1]) if has_final else None for camera, rows in episode.images.items()}
    return pa.table(row | {name: pa.array([data], pa.binary()) for name, data in images.items()})


def apply_extras(episode: Episode, row: pa.Table, robot_actions: np.ndarray, spec: ActionSpec, where: str) -> None:
    """Complete an episode that holds what LeRobot's columns say. `robot_actions`: float32 (T, n), in units."""
    where = f"{where}, {EPISODES}"
    logged = numbers(row, "actions", robot_actions.size, where).reshape(robot_actions.shape)
    if spec.to_units(logged).tobytes() != robot_actions.astype(np.float32).tobytes():
        raise DatasetError(
            f"{where}: its actions are not those of the dataset, which was changed since; "
            "delete the folder qtransformer to read it as plain LeRobot"
        )
    cells: Mapping[str, Any] = {name: values(row, name, where)[0] for name in row.column_names}
    try:
        episode.info = dict(json.loads(cells["info"]))
        times, final = cells["timestamps"], cells["final_state"]
        episode.timestamps = None if times is None else np.array(times, np.float64)
        if final is not None:
            episode.proprio[-1] = final
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: expected what was written ({error!r}); restore the file from its source") from error
    episode.actions = logged
    episode.success = bool(cells["success"])
    episode.terminated[-1], episode.truncated[-1] = bool(cells["terminated"]), bool(cells["truncated"])
    episode.has_final_observation = final is not None
    if final is None:
        return
    for camera, rows in episode.images.items():
        data = cells[_FINAL_IMAGE + camera]
        rows[-1] = decode_image(data or b"", rows.shape[1:], f"{where}: final image of '{camera}'")

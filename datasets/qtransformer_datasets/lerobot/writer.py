"""Writing LeRobotDataset v3.0 so that a killed collection loses at most the episode being written.

Every episode is first a folder of its own in `<path>.partial/`, complete by rename; `finish` joins them in `merge`
and lets the dataset appear at `<path>` in one step. An episode of T steps is T rows:

    observation.state (p,) f4        action (n,) f4, in the action spec's units
    observation.images.<camera>      PNG in the row (lossless), or a video of all rows
    next.reward f4   next.done   next.success   next.truncated (the last true in the last row at most)
    timestamp f4 = frame_index / fps, as LeRobot demands

LeRobot loads and trains on that as it is. The observation after the last action, true times, actions as logged, specs and
provenance are beside it (`extras`): an extra row for the final observation would need an invented action, on which
LeRobot would train.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.parts import refuse_unfinished
from qtransformer_datasets.episodes.parts_writer import PartsWriter
from qtransformer_datasets.lerobot.extras import FORMAT_VERSION, extras_row
from qtransformer_datasets.lerobot.image_bytes import encode_png
from qtransformer_datasets.lerobot.layout import ACTION, CAMERA_PREFIX, STATE, is_plain_key
from qtransformer_datasets.lerobot.merge import EXTRAS, HISTOGRAM, PART, ROWS, merge
from qtransformer_datasets.lerobot.outcome import DONE, REWARD, SUCCESS, TRUNCATED
from qtransformer_datasets.lerobot.stats import histogram
from qtransformer_datasets.lerobot.video_frames import video_rate, write_video

Images = Literal["png", "av1", "h264"]


def losses(action_spec: ActionSpec, observation_spec: ObservationSpec, images: Images = "png") -> dict[str, str]:
    """What `LeRobotWriter` cannot keep; see `formats.Format.losses`."""
    del action_spec, observation_spec
    _check_images(images)
    return {} if images == "png" else {"images": f"{images} video is not lossless; out.images=png keeps every pixel"}


def _check_images(images: str) -> None:
    *others, last = get_args(Images)
    if images not in (*others, last):
        raise ConfigError(f"out.images expected {', '.join(others)} or {last}, found {images}; choose one")


class LeRobotWriter(PartsWriter):
    """Writes one LeRobotDataset.

    `images`: "png" keeps every pixel; "av1" and "h264" are videos as LeRobot records them: a tenth of the size, not lossless.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None = None,
        *,
        images: Images = "png",
    ) -> None:
        """Start a new dataset. `attributes` is free JSON-able provenance; its `robot_type` is LeRobot's."""
        refuse_unfinished(Path(path), "LeRobotWriter")
        self._open(Path(path), action_spec, observation_spec, attributes, images)

    @classmethod
    def open_or_resume(
        cls,
        path: str | os.PathLike[str],
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None = None,
        *,
        images: Images = "png",
    ) -> "LeRobotWriter":
        """Continue what a killed run left, or start. Refuses, naming the field, if specs, attributes or images differ."""
        writer = cls.__new__(cls)
        writer._open(Path(path), action_spec, observation_spec, attributes, images)
        return writer

    def _open(
        self,
        path: Path,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None,
        images: Images,
    ) -> None:
        _check_images(images)
        for camera in observation_spec.cameras:
            if not is_plain_key(camera):
                raise DatasetError(f"{path}: LeRobot cannot hold a camera named '{camera}': no slashes or braces; rename it")
        self.images: Images = images
        layout = {"format_version": FORMAT_VERSION, "images": images}
        self._begin(path, action_spec, observation_spec, attributes, layout, "episode_0")

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return _write_errors(where)

    def _merge(self, merged: Path) -> None:
        shutil.rmtree(merged, ignore_errors=True)
        merge([self._parts[i] for i in range(len(self))], merged, self._recipe)

    def _write_part(self, fresh: Path, episode: Episode, where: str) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        rows = self._columns(episode)
        for number, (camera, images) in enumerate(episode.images.items()):
            if self.images == "png":
                cells = [{"bytes": encode_png(image), "path": None} for image in images[:-1]]
                rows[CAMERA_PREFIX + camera] = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
            else:
                rate = video_rate(self.observation_spec.control_hz)
                write_video(fresh / f"{number}.mp4", images[:-1], rate, self.images, f"{where}, camera '{camera}'")
            np.save(fresh / f"{number}{HISTOGRAM}", histogram(images[:-1]))
        pq.write_table(pa.table(rows), fresh / ROWS, use_dictionary=False, write_page_checksum=True)
        pq.write_table(extras_row(episode, len(self), where), fresh / EXTRAS, use_dictionary=False, write_page_checksum=True)
        (fresh / PART).write_text(json.dumps({"length": len(episode), "instruction": episode.instruction}))

    def _columns(self, episode: Episode) -> dict[str, pa.Array]:
        """Everything per row but images and what only the whole dataset knows."""
        length = len(episode)
        steps, last = np.arange(length), np.arange(length) == length - 1
        columns = {ACTION: _vectors(self.action_spec.to_units(episode.actions))}
        if episode.proprio.shape[1]:
            columns = {STATE: _vectors(episode.proprio[:-1])} | columns
        return columns | {
            REWARD: pa.array(episode.rewards),
            DONE: pa.array(last),
            SUCCESS: pa.array(last & episode.success),
            TRUNCATED: pa.array(episode.truncated),
            "timestamp": pa.array((steps / self.observation_spec.control_hz).astype(np.float32)),
            "frame_index": pa.array(steps),
            "episode_index": pa.array(np.full(length, len(self))),
        }


@contextmanager
def _write_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{where}: cannot be written ({error}); check space and permissions, then resume") from error


def _vectors(rows: np.ndarray) -> pa.Array:
    """(T, d) as a column of lists of d; of plain numbers where d is 1, as LeRobot has it."""
    flat = pa.array(np.ascontiguousarray(rows).ravel())
    return flat if rows.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])

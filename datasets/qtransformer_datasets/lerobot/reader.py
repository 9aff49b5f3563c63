"""Reading LeRobotDatasets v2.0, v2.1 and v3.0 from a folder: ours as they were written, foreign ones with what they leave unsaid.

A LeRobot row holds an observation and the action taken then; nothing follows the last action. So an episode of T rows becomes
T steps whose final observation is lost (`has_final_observation` is false, row T repeats row T - 1): every action is kept, a
success needs no final observation, and a truncated last step is masked from bootstrapped targets.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Episode, ObservationSpec
from qtransformer_datasets.episodes.limits import Limits, check_names
from qtransformer_datasets.episodes.missing import check_file, refuse_missing
from qtransformer_datasets.episodes.reader import EpisodeReader
from qtransformer_datasets.episodes.successes import Successes, refuse_success, succeeding
from qtransformer_datasets.lerobot.episode_rows import RowReader, index_rows, row_reader
from qtransformer_datasets.lerobot.extras import apply_extras, extras_columns, find_extras
from qtransformer_datasets.lerobot.image_bytes import decode_image
from qtransformer_datasets.lerobot.layout import ACTION, STATE, Feature, Layout
from qtransformer_datasets.lerobot.outcome import COLUMNS as OUTCOME_COLUMNS
from qtransformer_datasets.lerobot.outcome import REWARD, SUCCESS, outcome
from qtransformer_datasets.lerobot.parquet_guard import MAX_RATIO, integers, numbers, values
from qtransformer_datasets.lerobot.specs import (
    ColumnRange,
    action_spec,
    camera_features,
    feature_of,
    image_shape,
    value_names,
    warn_of_lost_names,
)
from qtransformer_datasets.lerobot.tasks import TASK, read_tasks
from qtransformer_datasets.lerobot.video_frames import image_size, read_frames
from qtransformer_datasets.lerobot.videos import EpisodeVideos

TIME, FRAME = "timestamp", "frame_index"
LONGEST_STEP = 1.5
"""In periods of `fps`: what is longer has lost frames."""
MAX_RATE_ERROR = 0.05
"""By which share the middle of an episode's steps may differ from a period: beyond that `fps` is not the data's, and a policy would
act at the wrong speed."""
_MIN_FRAME_BYTES = 8
"""No codec spends less on a frame, its entry in the file's index included."""


class LeRobotEpisodes(EpisodeReader[tuple[RowReader, RowReader]]):
    """The episodes of a LeRobotDataset on disk, by rising `episode_index`; an `EpisodeSource`.

    Cameras are the features `observation.images.<camera>`. Options, by LeRobot's names where it has them:

    `episodes`: indices to read; by default all that have data.
    `cameras`: names to read; by default all. Depth maps are never read.
    `tolerance_s`: by how much a video frame's time may differ from its row's [s], as in LeRobot.
    `clip_actions`: move actions beyond the limits onto them instead of refusing their episode; `info["clipped_actions"]` then
    says which share of the steps of each dimension that was.

    The others serve what a dataset does not say, and are ignored where it was written by `LeRobotWriter`:

    `success`: which episodes succeeded: "all", "none" or a list of indices; see `outcome` for what else says so. It is
    refused, not ignored, where the dataset has `next.success`.
    `action`: the feature that holds actions. `proprio`: features joined to proprioception, in this order.
    `limits`: {action name: [low, high]}, or a pair for every dimension, in units; by default the extremes of the whole dataset.
    `units`: {name of an action or state value: unit}, "1" where none is given.
    `discrete`: {action name: number of distinct values} for switches such as a gripper.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        success: Successes | None = None,
        cameras: Sequence[str] | None = None,
        action: str = ACTION,
        proprio: Sequence[str] | None = None,
        limits: Limits | None = None,
        units: Mapping[str, str] | None = None,
        discrete: Mapping[str, int] | None = None,
        episodes: Sequence[int] | None = None,
        tolerance_s: float = 1e-4,
        clip_actions: bool = False,
    ) -> None:
        self.path, self.clip_actions = Path(path), clip_actions
        if not self.path.exists():
            refuse_missing(self.path)
        self._layout = Layout(self.path)
        self._extras = find_extras(self._layout)
        if self._extras is not None:
            action, proprio = ACTION, None
        self._cameras = camera_features(self._layout, cameras)
        self._shapes = {name: image_shape(feature, str(self.path)) for name, feature in self._cameras.items()}
        self._action = feature_of(self._layout, action, "action")
        if proprio is None:
            proprio = [STATE] if STATE in self._layout.features else []
        self._state = [feature_of(self._layout, key, "proprio") for key in proprio]
        warn_of_lost_names([self._action, *self._state], str(self.path))
        measured = ColumnRange(self._action, str(self.path))
        self._index(episodes, measured)
        self._found = measured
        if self._extras is None:
            names = value_names(self._state)
            check_names(units or {}, [*value_names([self._action]), *names], f"{self.path}: units")
            self.action_spec = action_spec(self._action, measured, limits, units or {}, discrete or {}, str(self.path))
            self.observation_spec = ObservationSpec(
                cameras=self._shapes,
                proprio_names=names,
                proprio_units=tuple(str((units or {}).get(name, "1")) for name in names),
                control_hz=self._layout.fps,
            )
            self.attributes = {"robot_type": self._layout.robot_type, "codebase_version": self._layout.version}
        else:
            kept = self._extras.observation_spec
            self.action_spec, self.attributes = self._extras.action_spec, self._extras.attributes
            self.observation_spec = ObservationSpec(self._shapes, kept.proprio_names, kept.proprio_units, kept.control_hz)
        if success is not None and SUCCESS in self._layout.features:
            refuse_success(success, str(self.path))
        self._success = succeeding(success, self._rows, str(self.path))
        self._tolerance = _checked_tolerance(tolerance_s, self._layout.fps)
        self._tasks = read_tasks(self._layout)
        self._check_first_videos()
        self._warn_of_demonstrations()

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def lengths(self) -> list[int]:
        """Steps per episode, without reading images; held against the size of the files that hold the images."""
        lengths = [len(rows) for rows in self._rows.values()]
        for name, feature in self._cameras.items():
            frame_bytes = int(np.prod(self._shapes[name]))
            if feature.dtype == "video":
                files = {self._video(feature, episode, self._named(episode))[0] for episode in self._rows}
                most = sum(path.stat().st_size for path in files if path.is_file()) // _MIN_FRAME_BYTES
            else:
                most = MAX_RATIO * sum(path.stat().st_size for path in {rows.file for rows in self._rows.values()}) // frame_bytes
            if sum(lengths) > most:
                raise DatasetError(
                    f"{self.path}: declares {sum(lengths)} frames of camera '{name}', its files have room for {most}; "
                    "the dataset is damaged or hostile: do not use it"
                )
        return lengths

    def _index(self, chosen: Sequence[int] | None, measured: ColumnRange) -> None:
        files = {
            self._layout.inside(_relative(path, self.path)): numbers for path, numbers in self._layout.data_path.find(self.path)
        }
        if not files:
            raise DatasetError(f"{self.path}: expected data at {self._layout.data_path.text}, found none; download the data too")
        self._rows = index_rows(files, measured.include, [self._action.key])
        if not self._rows:
            raise DatasetError(f"{self.path}: expected at least one episode, found none; record or download some")
        if chosen is not None:
            missing = [episode for episode in chosen if episode not in self._rows]
            if missing:
                raise DatasetError(
                    f"{self.path}: episodes {missing[:5]} have no data, of {len(self._rows)} that have; correct the list"
                )
            self._rows = {episode: self._rows[episode] for episode in sorted(set(chosen))}
        self._numbers = list(self._rows)
        video_keys = [feature.key for feature in self._cameras.values() if feature.dtype == "video"]
        self._videos = EpisodeVideos(self._layout, video_keys, {e: files[rows.file] for e, rows in self._rows.items()})

    @contextmanager
    def _open(self) -> Iterator[tuple[RowReader, RowReader]]:
        """Of the dataset's rows, and of the extras."""
        images = [feature.key for feature in self._cameras.values() if feature.dtype == "image"]
        state = [feature.key for feature in self._state]
        with ExitStack() as stack:
            yield (
                stack.enter_context(row_reader([TIME, FRAME, TASK, self._action.key, *state, *OUTCOME_COLUMNS, *images])),
                stack.enter_context(row_reader(extras_columns(list(self._cameras)))),
            )

    def where(self, index: int) -> str:
        return self._named(self._numbers[index])

    def says_success(self, index: int) -> bool:
        return SUCCESS in self._layout.features

    def _measured_extremes(self) -> tuple[np.ndarray, np.ndarray] | None:
        return (self._found.low, self._found.high) if self._extras is None else None

    def _named(self, episode: int) -> str:
        return f"{self.path}, episode {episode}"

    def _load(self, opened: tuple[RowReader, RowReader], index: int) -> Episode:
        where, episode, (reader, extras_reader) = self.where(index), self._numbers[index], opened
        table = reader.read(self._rows[episode], where)
        actions = numbers(table, self._action.key, self._action.width, where)
        times = self._times(table, where)
        went = outcome(table, episode, self._success, where)
        last = np.arange(len(table)) == len(table) - 1
        result = Episode(
            images=self._images(table, episode, times, where),
            proprio=self._proprio(table, where),
            actions=self.action_spec.to_scaled(actions),
            rewards=went.rewards,
            terminated=last & went.terminated,
            truncated=last & went.truncated,
            timestamps=np.append(times, times[-1] + 1 / self._layout.fps),
            instruction=self._instruction(table, where),
            success=went.success,
            has_final_observation=False,
            info={"episode_index": episode},
        )
        if self._extras is not None:
            if episode not in self._extras.rows:
                raise DatasetError(f"{where}: added by another tool; delete the folder qtransformer to read it as plain LeRobot")
            row = extras_reader.read(self._extras.rows[episode], where)
            apply_extras(result, row, actions, self.action_spec, where)
        return result

    def _times(self, table: pa.Table, where: str) -> np.ndarray:
        """float64 (T,) [s] from the episode's start, checked for rows that are missing or out of order."""
        frames = integers(table, FRAME, where)
        if (frames != np.arange(len(frames))).any():
            row = int((frames != np.arange(len(frames))).argmax())
            raise DatasetError(f"{where}: {FRAME} expected {row} in row {row}, found {frames[row]}; repair or remove the episode")
        times = numbers(table, TIME, 1, where)[:, 0].astype(np.float64)
        steps = np.diff(times)
        self._check_rate(steps, where)
        if not (np.isfinite(times).all() and (steps > 0).all() and (steps < LONGEST_STEP / self._layout.fps).all()):
            row = int((~((steps > 0) & (steps < LONGEST_STEP / self._layout.fps))).argmax())
            raise DatasetError(
                f"{where}: timestamps expected 1/{self._layout.fps:g} s apart, found {times[row : row + 2]} s in rows {row} and "
                f"{row + 1}; split the episode there, or leave it out (episodes=...)"
            )
        return times

    def _check_rate(self, steps: np.ndarray, where: str) -> None:
        middle = float(np.median(steps)) if len(steps) else np.nan
        if middle > 0 and abs(middle * self._layout.fps - 1) > MAX_RATE_ERROR:
            raise DatasetError(
                f"{where}: timestamps expected 1/{self._layout.fps:g} s apart, as meta/info.json says fps {self._layout.fps:g}, "
                f"found {middle:.4g} s ({1 / middle:.4g} Hz) at most steps; correct whichever is wrong"
            )

    def _proprio(self, table: pa.Table, where: str) -> np.ndarray:
        rows = np.empty((len(table) + 1, len(self.observation_spec.proprio_names)), np.float32)
        with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, which check_episode reports
            joined = [numbers(table, feature.key, feature.width, where) for feature in self._state]
            rows[:-1] = np.concatenate(joined, axis=1) if joined else 0
        rows[-1] = rows[-2]
        return rows

    def _images(self, table: pa.Table, episode: int, times: np.ndarray, where: str) -> dict[str, np.ndarray]:
        images = {}
        for name, feature in self._cameras.items():
            here = f"{where}, camera '{name}'"
            try:
                rows = np.empty((len(table) + 1, *self._shapes[name]), np.uint8)
            except (MemoryError, ValueError) as error:
                raise DatasetError(f"{here}: {len(table)} frames do not fit into memory ({error}); split the episode") from error
            if feature.dtype == "video":
                path, start = self._video(feature, episode, here)
                read_frames(path, start + times, rows[:-1], self._tolerance, here)
            else:
                for step, cell in enumerate(values(table, feature.key, here)):
                    rows[step] = decode_image(
                        self._image_data(cell, f"{here}, step {step}"), rows.shape[1:], f"{here}, step {step}"
                    )
            rows[-1] = rows[-2]
            images[name] = rows
        return images

    def _image_data(self, cell: Any, where: str) -> bytes:
        """The bytes in the table, or of the file that it names."""
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (cell, None)
        if isinstance(data, bytes):
            return data
        if not isinstance(path, str):
            raise DatasetError(f"{where}: expected an image, found none; restore it, or remove the episode")
        file = self._layout.inside(path, where)
        check_file(file, "a PNG or JPEG file")
        return file.read_bytes()

    def _video(self, feature: Feature, episode: int, where: str) -> tuple[Path, float]:
        return self._videos.find(feature.key, episode, len(self._rows[episode]), where)

    def _instruction(self, table: pa.Table, where: str) -> str:
        """The task; several in one episode are joined."""
        if not self._tasks:
            return ""
        found = dict.fromkeys(int(index) for index in integers(table, TASK, where))
        unknown = [index for index in found if index not in self._tasks]
        if unknown:
            raise DatasetError(f"{where}: {TASK} {unknown[0]} is not among the {len(self._tasks)} of meta/tasks; restore that file")
        return "; ".join(self._tasks[index] for index in found)

    def _check_first_videos(self) -> None:
        """A camera of another size than declared is found before anything is allocated for it."""
        episode = next(iter(self._rows))
        for name, feature in self._cameras.items():
            where = f"{self._named(episode)}, camera '{name}'"
            if feature.dtype == "video":
                try:
                    path, _ = self._video(feature, episode, where)
                except DatasetError:  # lengths of videos are in seconds: at a wrong rate they fit no rows
                    self._check_rate(self._first_steps(episode), self._named(episode))
                    raise
                found = image_size(path, where)
                if found != self._shapes[name][:2]:
                    raise DatasetError(
                        f"{where}: meta/info.json says {self._shapes[name]}, its video has {found}; correct the feature's shape"
                    )

    def _first_steps(self, episode: int) -> np.ndarray:
        where = self._named(episode)
        with row_reader([TIME]) as reader:
            return np.diff(numbers(reader.read(self._rows[episode], where), TIME, 1, where)[:, 0].astype(np.float64))

    def _warn_of_demonstrations(self) -> None:
        if self._extras is None and self._success is None and not {REWARD, SUCCESS} & set(self._layout.features):
            warnings.warn(
                f"{self.path}: has no rewards; every episode is taken for a successful demonstration. "
                "Say so (success:all), or say otherwise: success:none or a list of episode indices",
                stacklevel=3,
            )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _checked_tolerance(tolerance: float, fps: float) -> float:
    if not 0 < tolerance < 0.5 / fps:
        raise ConfigError(
            f"tolerance_s expected more than 0 and less than half a frame, {0.5 / fps:g} s, found {tolerance}; choose less"
        )
    return float(tolerance)

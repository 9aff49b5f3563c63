"""Reading Minari datasets from their HDF5 files, with h5py alone.

    <dataset>/data/main_data.hdf5     /episode_<i>: observations, actions, rewards, terminations, truncations, infos
    <dataset>/data/metadata.json      the spaces, as JSON in JSON; older versions keep it in the file's attributes

Observations of a Dict space are a group, nested as the space is. An episode of T steps has T + 1 of them. Minari says neither
at which rate its robot was controlled nor in which units it speaks.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.hdf5_guard import (
    MAX_TEXT_BYTES,
    child,
    child_dataset,
    child_group,
    child_names,
    has_child,
    hdf5_errors,
    is_text,
    open_hdf5,
    text_attribute,
    text_rows,
)
from qtransformer_datasets.episodes.limits import Limits, extremes, given_limits
from qtransformer_datasets.episodes.reader import EpisodeReader
from qtransformer_datasets.episodes.unsaid import ask_for, check_rate
from qtransformer_datasets.robomimic.specs import SIMULATOR_TRUTH, image_shape, is_camera

MAIN_FILE = "main_data.hdf5"
_SUCCESS_KEYS = ("success", "is_success")
_DESCRIPTIONS = ("dataset_id", "env_spec", "algorithm_name", "author", "code_permalink", "minari_version", "description")


class MinariEpisodes(EpisodeReader[h5py.File]):
    """The episodes of one Minari dataset, in the order of their numbers; an `EpisodeSource`.

    `path` is the dataset's directory, or its main_data.hdf5. Images are the uint8 observations of shape (h, w, 3), and are
    named as they are; one- and no-dimensional observations are proprioception; a single text observation is the instruction;
    `attributes["ignored_observations"]` names the rest. An episode succeeded if `infos/success` (or `is_success`) says so at its
    end; where there is none, if it terminated with a positive reward.

    `control_hz`: rate of control [Hz]; must be said, for the files do not.
    `proprio`: observations to join as proprioception, in this order. By default all but `object`, a simulator's truth.
    `limits`: {action name: [low, high]}, or a pair for every dimension, where the action space has none or others are meant.
    `clip_actions`: move actions beyond the limits to them instead of refusing their episode; `info["clipped_actions"]` then says
    which share of the steps of each dimension that was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        control_hz: float | None = None,
        proprio: Sequence[str] | None = None,
        limits: Limits | None = None,
        clip_actions: bool = False,
    ) -> None:
        self.path, self.clip_actions = main_file(Path(path)), clip_actions
        if control_hz is not None:
            check_rate(control_hz, self.path)
        with open_hdf5(self.path) as file:
            metadata = _metadata(file, self.path)
            self.names = _episode_names(file, self.path)
            where = self.where(0)
            first = child_group(file, self.names[0], where)
            unsaid, limits_unsaid = list[str](), ""
            if control_hz is None:
                unsaid.append("control_hz")
            try:
                self.action_spec = _action_spec(child(first, "actions", where), metadata.get("action_space"), limits, where)
            except _LimitsError as error:
                unsaid.append("limits")
                limits_unsaid = str(error)
            ask_for(unsaid, self.path, limits_unsaid)
            assert control_hz is not None
            leaves = dict(_leaves(child(first, "observations", where), "", where))
        self._cameras, self._proprio, self._text, ignored = _roles(leaves, proprio, where)
        self.observation_spec = ObservationSpec(
            cameras={key: leaves[key].image for key in self._cameras},
            proprio_names=tuple(name for key in self._proprio for name in leaves[key].proprio_names(key)),
            proprio_units=tuple("unknown" for key in self._proprio for _ in range(leaves[key].width)),
            control_hz=float(control_hz),
        )
        self.attributes = {name: metadata[name] for name in _DESCRIPTIONS if name in metadata}
        if ignored:
            self.attributes["ignored_observations"] = ignored

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def lengths(self) -> list[int]:
        """Steps per episode, without reading images."""
        with open_hdf5(self.path) as file:
            return [self._length(file, index) for index in range(len(self))]

    def _open(self) -> AbstractContextManager[h5py.File]:
        return open_hdf5(self.path)

    def where(self, index: int) -> str:
        return f"{self.path}, {self.names[index]}"

    def says_success(self, index: int) -> bool:
        return index in self._telling

    @cached_property
    def _telling(self) -> set[int]:
        """Episodes whose infos say whether they succeeded."""
        with open_hdf5(self.path) as file:
            groups = (child_group(file, name, self.where(index)) for index, name in enumerate(self.names))
            return {index for index, group in enumerate(groups) if _success_infos(group, self.where(index)) is not None}

    def _measured_extremes(self) -> tuple[np.ndarray, np.ndarray]:
        with open_hdf5(self.path) as file:
            wheres = (self.where(index) for index in range(len(self)))
            parts = (_numbers(child_group(file, self.names[i], at), "actions", at, np.float64) for i, at in enumerate(wheres))
            return extremes(parts, len(self.action_spec))

    def _length(self, file: h5py.File, index: int) -> int:
        where = self.where(index)
        with hdf5_errors(where):
            rewards = child_dataset(child_group(file, self.names[index], where), "rewards", where)
            return _rows(rewards, where)

    def _load(self, opened: h5py.File, index: int) -> Episode:
        where = self.where(index)
        with hdf5_errors(where):
            return self._read_episode(child_group(opened, self.names[index], where), where)

    def _read_episode(self, group: h5py.Group, where: str) -> Episode:
        rewards = _numbers(group, "rewards", where)
        length = len(rewards)
        if length == 0:
            raise DatasetError(f"{where}: expected at least one step, found none; remove the episode")
        actions = _numbers(group, "actions", where, np.float64).reshape(length, -1)
        if actions.shape[1] != len(self.action_spec):
            raise DatasetError(f"{where}: actions expected {len(self.action_spec)} numbers per step, found {actions.shape[1]}")
        observations = _Observations(group, length, where)
        proprio = [observations.read(key).reshape(length + 1, -1) for key in self._proprio]
        terminated, truncated = (_numbers(group, name, where, bool) for name in ("terminations", "truncations"))
        if len(terminated) == len(truncated) == length and not (terminated[-1] or truncated[-1]):
            truncated[-1] = True  # an episode that simply stops
        return Episode(
            images={key: observations.read(key) for key in self._cameras},
            proprio=np.concatenate(proprio, axis=1).astype(np.float32) if proprio else np.zeros((length + 1, 0), np.float32),
            actions=self.action_spec.to_scaled(actions),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            instruction=observations.text(self._text) if self._text else "",
            success=_success(group, rewards, terminated, where),
            has_final_observation=observations.has_final,
            info=_seed(group),
        )


class _Leaf:
    """What an observation's array tells about itself."""

    def __init__(self, dataset: h5py.Dataset, where: str) -> None:
        self.is_text = is_text(dataset)
        self.is_camera = not self.is_text and is_camera(dataset)
        self.image = image_shape(dataset, where) if self.is_camera else (0, 0, 0)
        self.is_vector = not self.is_text and dataset.ndim in (1, 2)
        self.width = int(np.prod(dataset.shape[1:])) if self.is_vector else 0

    def proprio_names(self, key: str) -> list[str]:
        return [key] if self.width == 1 else [f"{key}[{i}]" for i in range(self.width)]


class _Observations:
    """The observations of one episode of `length` steps: T + 1 rows, or T where the log lost the last."""

    def __init__(self, group: h5py.Group, length: int, where: str) -> None:
        self.group, self.length, self.where = group, length, where
        self.has_final = True

    def read(self, key: str) -> np.ndarray:
        dataset = child_dataset(*self._place(key), self.where)
        rows = _rows(dataset, self.where)
        if rows not in (self.length, self.length + 1):
            raise DatasetError(
                f"{self.where}: {key} expected {self.length + 1} rows, one more than there are rewards, found {rows}; "
                "remove the episode"
            )
        values = dataset[()]
        if rows == self.length:
            self.has_final = False
            values = np.concatenate([values, values[-1:]])
        return values

    def text(self, key: str) -> str:
        rows = text_rows(*self._place(key), self.where)
        return rows[0] if rows else ""

    def _place(self, key: str) -> tuple[h5py.Group, str]:
        *folders, name = ("observations", *key.split("/")) if key != _BOX else ("observations",)
        group = self.group
        for folder in folders:
            group = child_group(group, folder, self.where)
        return group, name


_BOX = "observation"
"""What the only array of a Box space is called here."""


def main_file(path: Path) -> Path:
    """The HDF5 file of a dataset's directory, of its data directory, or itself."""
    for candidate in (path / "data" / MAIN_FILE, path / MAIN_FILE):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise DatasetError(
            f"{path}: expected data/{MAIN_FILE}, found none; a dataset in Arrow or Parquet must be converted to HDF5 with minari"
        )
    return path


def _metadata(file: h5py.File, path: Path) -> dict[str, Any]:
    """metadata.json beside the file, or the attributes that older versions kept in it."""
    beside = path.with_name("metadata.json")
    if not beside.is_file():
        names = [name for name in (*_DESCRIPTIONS, "action_space") if name in file.attrs]
        return {name: text_attribute(file, name, str(path)) for name in names if file.attrs.get_id(name).shape == ()}
    if beside.stat().st_size > MAX_TEXT_BYTES:
        raise DatasetError(f"{beside}: expected at most {MAX_TEXT_BYTES} bytes, found {beside.stat().st_size}; do not use it")
    return _json_object(beside.read_bytes(), str(beside))


def _json_object(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: expected JSON ({error}); restore it from its source") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{where}: expected a JSON object, found {type(value).__name__}; restore it from its source")
    return value


def _episode_names(file: h5py.File, path: Path) -> list[str]:
    names = [name for name in child_names(file) if re.fullmatch(r"episode_[0-9]{1,15}", name)]
    if not names:
        raise DatasetError(f"{path}: expected groups /episode_<i>, found {child_names(file)[:5]}; this is not the format's layout")
    return sorted(names, key=lambda name: int(name[8:]))


def _leaves(node: h5py.Group | h5py.Dataset, prefix: str, where: str, depth: int = 0) -> Iterator[tuple[str, _Leaf]]:
    """Every array of the observations by its path, such as "camera/front"; each link is looked at before it is followed."""
    if isinstance(node, h5py.Dataset):
        yield prefix or _BOX, _Leaf(node, where)
        return
    if depth > 8:
        raise DatasetError(f"{where}: observations expected at most 8 groups deep, found more; do not use this file")
    for name in child_names(node):
        yield from _leaves(child(node, name, where), f"{prefix}/{name}" if prefix else name, where, depth + 1)


def _roles(
    leaves: dict[str, _Leaf], chosen: Sequence[str] | None, where: str
) -> tuple[list[str], list[str], str | None, list[str]]:
    """Which observations are cameras, proprioception and the instruction, and which are none of these."""
    cameras = [key for key, leaf in leaves.items() if leaf.is_camera]
    vectors = [key for key, leaf in leaves.items() if leaf.is_vector]
    texts = [key for key, leaf in leaves.items() if leaf.is_text]
    for key in chosen or ():
        if key not in vectors:
            raise ConfigError(f"{where}: proprio expected some of {vectors}, found '{key}'; choose among these")
    proprio = [key for key in vectors if key not in SIMULATOR_TRUTH] if chosen is None else list(chosen)
    text = texts[0] if len(texts) == 1 else None
    return cameras, proprio, text, [key for key in leaves if key not in (*cameras, *proprio, text)]


class _LimitsError(ValueError):
    """The action space does not tell the limits."""


def _action_spec(
    node: h5py.Group | h5py.Dataset,
    space: Any,
    limits: Limits | None,
    where: str,
) -> ActionSpec:
    """Dimensions a0, a1, ... without unit, within the limits that are given, or else the action space's."""
    if not isinstance(node, h5py.Dataset) or node.ndim not in (1, 2):
        raise DatasetError(
            f"{where}: actions expected one array (T, n), found {node}; actions of Dict or Tuple spaces are not read"
        )
    width = 1 if node.ndim == 1 else node.shape[1]
    if not 0 < width < 1000:
        raise DatasetError(f"{where}: actions expected from 1 to 999 dimensions, found {width}; this is not the format's layout")
    names, discrete, own = tuple(f"a{i}" for i in range(width)), 0, dict[str, tuple[float, float]]()
    given = given_limits(limits, names, where)
    if len(given) < width:
        pairs, discrete = _limits(_json_object(space, f"{where}, action_space") if isinstance(space, str) else {}, width, where)
        if len(pairs) != width:
            raise _LimitsError(f"actions have {width} dimensions, the action space {len(pairs)}")
        own = dict(zip(names, pairs, strict=True))
    low, high = zip(*((own | given)[name] for name in names), strict=True)
    try:
        return ActionSpec(names=names, low=low, high=high, units=("1",) * width, discrete=(discrete,) * width)
    except SpecMismatchError as error:
        raise _LimitsError(str(error)) from error


def _limits(space: dict[str, Any], width: int, where: str) -> tuple[list[tuple[float, float]], int]:
    """(low, high) per dimension of an action space, and how many values a Discrete one has, else 0."""
    try:
        if space.get("type") == "Discrete":
            return [(int(space["start"]), int(space["start"]) + int(space["n"]) - 1)], int(space["n"])
        if space.get("type") == "Box":
            low, high = (np.broadcast_to(np.asarray(space[end], np.float64), (width,)) for end in ("low", "high"))
            return [(float(a), float(b)) for a, b in zip(low, high, strict=True)], 0
    except (KeyError, TypeError, ValueError) as error:
        raise _LimitsError(f"its action space cannot be read: {error!r}") from error
    raise _LimitsError(f"action space expected Box or Discrete, found {space.get('type')}")


def _numbers(group: h5py.Group, name: str, where: str, kind: type[Any] = np.float32) -> np.ndarray:
    dataset = child_dataset(group, name, where)
    _rows(dataset, where)
    with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, which check_episode reports
        return dataset[()].astype(kind)


def _rows(dataset: h5py.Dataset, where: str) -> int:
    if dataset.ndim == 0:
        raise DatasetError(f"{where}: {dataset.name} expected one row per step, found a single number; remove the episode")
    return dataset.shape[0]


def _seed(group: h5py.Group) -> dict[str, int]:
    seed = group.attrs.get("seed")
    return {"seed": int(seed)} if isinstance(seed, int | np.integer) else {}


def _success(group: h5py.Group, rewards: np.ndarray, terminated: np.ndarray, where: str) -> bool:
    infos = _success_infos(group, where)
    if infos is None:
        return bool(len(terminated) and terminated[-1] and rewards[-1] > 0)
    said = _numbers(*infos, where, bool).reshape(-1)
    return bool(len(said) and said[-1])


def _success_infos(group: h5py.Group, where: str) -> tuple[h5py.Group, str] | None:
    """Where an episode says how it went: a group, and the name of an array in it."""
    infos = child_group(group, "infos", where) if has_child(group, "infos") else None
    return next(((infos, key) for key in _SUCCESS_KEYS if infos is not None and has_child(infos, key)), None)

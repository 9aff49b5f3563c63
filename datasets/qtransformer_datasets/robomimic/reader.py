"""Reading robomimic HDF5: files of `writer` as they were written, foreign ones with what they leave unsaid.

A foreign file says neither what `dones` means nor at which rate its robot was controlled nor in which units it speaks.
What can be read off the arrays is; what would be a guess is asked for.
"""

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.hdf5_guard import (
    MAX_RATIO,
    child_dataset,
    child_group,
    child_names,
    has_child,
    hdf5_errors,
    json_attribute,
    number_attribute,
    open_hdf5,
    text_attribute,
    text_rows,
)
from qtransformer_datasets.episodes.limits import Limits, extremes
from qtransformer_datasets.episodes.reader import EpisodeReader
from qtransformer_datasets.episodes.successes import Successes, refuse_success, succeeding, success_of_rewards
from qtransformer_datasets.episodes.unsaid import ask_for, check_rate, refuse_said
from qtransformer_datasets.robomimic.endings import NO_DONES, Dones, ends, last_only, last_step, says_how_it_ended
from qtransformer_datasets.robomimic.rows import FrameReader, low_dim
from qtransformer_datasets.robomimic.specs import (
    check_proprio,
    infer_action_spec,
    infer_observation_spec,
    proprio_keys,
    told_control_hz,
)


class HDF5Episodes(EpisodeReader[h5py.File]):
    """The episodes of one robomimic HDF5 file, in numerical order of their demos; an `EpisodeSource`.

    The options serve files that do not say these things themselves, and are refused by files that do:

    `dones`: what the file's `dones` mean. "terminated": the task ended there, and steps after it are dropped; a demo
    without any is truncated at its end, and so is one that ends without success: robomimic's conversion scripts set `dones` at
    the end of every demo, too (done mode 2). "truncated": the demo was cut there by a time limit. Where a demo has no array of
    that name, it ends at its last step, and this says how.
    `success`: which demos succeeded: "all", "none" or a list of their numbers. By default those in which a reward of 1 occurs,
    where rewards are 0 and 1; without rewards, those that `dones` terminated. Other rewards do not tell, so it must be said;
    and it is refused for a file that says it itself.
    `control_hz`: rate of control [Hz], where `env_args` has no `control_freq`.
    `limits`: {action name: [low, high]}, or a pair for every dimension; the others keep robomimic's [-1, 1].

    These serve every file:

    `proprio`: low-dimensional keys of `obs`, in the order in which they are joined. By default all but `object`, which
    is the simulator's truth and not a robot's. Of files of `writer`: the names of their values, by default all.
    `filter_key`: read only the demos that are listed in /mask/<filter_key>, such as "train" or "valid".
    `clip_actions`: move actions beyond the limits onto them instead of refusing their episode; `info["clipped_actions"]` then
    says which share of the steps of each dimension that was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dones: Dones | None = None,
        success: Successes | None = None,
        control_hz: float | None = None,
        limits: Limits | None = None,
        proprio: Sequence[str] | str | None = None,
        filter_key: str | None = None,
        clip_actions: bool = False,
    ) -> None:
        self.path = Path(path)
        self.dones: Dones | None = dones
        self.clip_actions = clip_actions
        self._kept: list[int] | None = None
        self._is_scaled = True
        if dones not in (None, "terminated", "truncated"):
            raise ConfigError(f"{self.path}: dones expected terminated or truncated, found {dones!r}; choose one")
        with open_hdf5(self.path) as file:
            data = child_group(file, "data", str(self.path))
            self.names = _demo_names(data, self.path)
            if filter_key is not None:
                self.names = _filtered(self.names, file, filter_key, str(self.path))
            first = child_group(data, self.names[0], str(self.path))
            self.declared_total = data.attrs.get("total")
            self.is_foreign = "observation_spec" not in data.attrs
            told = self._read_env_args(data) if self.is_foreign else self._read_specs(data)
            unsaid = list[str]()
            if told is None and control_hz is None:
                unsaid.append("control_hz")
            if dones is None and not says_how_it_ended(first):
                unsaid.append("dones")
            ask_for(unsaid, self.path, "" if has_child(first, "dones") else NO_DONES)
            if told is not None and control_hz not in (None, told):
                refuse_said("control_hz", control_hz, self.path, f"{told:g}")
            if dones is not None and all(says_how_it_ended(child_group(data, name, str(self.path))) for name in self.names):
                refuse_said("dones", dones, self.path, "of every demo how it ended")
            chosen = [proprio] if isinstance(proprio, str) else proprio
            if limits is not None and not self.is_foreign:
                refuse_said("limits", limits, self.path, "those of every dimension")
            if self.is_foreign:
                self._infer(first, control_hz if told is None else told, chosen, limits)
            elif chosen is not None:
                self._choose_proprio(chosen)
            if success is not None and "success" in first.attrs:
                refuse_success(success, str(self.path))
        self._successes = succeeding(success, [_number(name) for name in self.names], str(self.path))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def lengths(self) -> list[int]:
        """Steps per episode, without reading images."""
        with open_hdf5(self.path) as file:
            lengths = [self._length(file, index) for index in range(len(self))]
        frame_bytes = sum(int(np.prod(shape)) for shape in self.observation_spec.cameras.values())
        if sum(lengths) * frame_bytes > MAX_RATIO * self.path.stat().st_size:
            raise DatasetError(
                f"{self.path}: declares {sum(lengths)} steps of {frame_bytes} image bytes, more than a file of "
                f"{self.path.stat().st_size} bytes can hold; the file is damaged or hostile: do not use it"
            )
        return lengths

    @property
    def problems(self) -> list[str]:
        """What is wrong with the file as a whole."""
        if self.is_foreign:
            return []
        where = str(self.path)
        with open_hdf5(self.path) as file:
            data = child_group(file, "data", where)
            steps = sum(
                number_attribute(child_group(data, name, where), "num_samples", where) for name in _demo_names(data, self.path)
            )
        if self.declared_total == steps:
            return []
        return [f"{self.path}: total says {self.declared_total} steps, its demos have {steps}"]

    def _open(self) -> AbstractContextManager[h5py.File]:
        return open_hdf5(self.path)

    def _read_specs(self, data: h5py.Group) -> float:
        """What the file says of itself; also its rate of control."""
        where = str(self.path)
        try:
            self.action_spec = ActionSpec.from_dict(json_attribute(data, "action_spec", where))
            self.observation_spec = ObservationSpec.from_dict(json_attribute(data, "observation_spec", where))
            self.attributes = dict(json_attribute(data, "attributes", where))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DatasetError(f"{where}: its specs cannot be read ({error!r}); restore the file from its source") from error
        self._camera_keys = {camera: f"{camera}_image" for camera in self.observation_spec.cameras}
        self._proprio_keys: tuple[str, ...] = ("proprio",)
        return self.observation_spec.control_hz

    def _read_env_args(self, data: h5py.Group) -> float | None:
        """The rate of control, where a foreign file says it."""
        env_args = json_attribute(data, "env_args", str(self.path)) if "env_args" in data.attrs else {}
        self.attributes = {"env_args": env_args}
        return told_control_hz(env_args)

    def _infer(self, first: h5py.Group, control_hz: Any, proprio: Sequence[str] | None, limits: Limits | None) -> None:
        where = f"{self.path}, {self.names[0]}"
        check_rate(control_hz, self.path)
        obs = child_group(first, "obs", where)
        self.action_spec = infer_action_spec(child_dataset(first, "actions", where), limits, where)
        self._is_scaled = limits is None
        self._proprio_keys = proprio_keys(obs, proprio, where)
        self.observation_spec, self._camera_keys = infer_observation_spec(obs, self._proprio_keys, float(control_hz), where)

    def _choose_proprio(self, chosen: Sequence[str]) -> None:
        """Keep some of the values that the file names, in this order."""
        spec = self.observation_spec
        check_proprio(chosen, spec.proprio_names, str(self.path))
        self._kept = [spec.proprio_names.index(name) for name in chosen]
        self._width = len(spec.proprio_names)
        units = tuple(spec.proprio_units[i] for i in self._kept)
        self.observation_spec = replace(spec, proprio_names=tuple(chosen), proprio_units=units)

    def _demo(self, file: h5py.File, index: int) -> h5py.Group:
        where = self.where(index)
        return child_group(child_group(file, "data", where), self.names[index], where)

    def where(self, index: int) -> str:
        return f"{self.path}, {self.names[index]}"

    def says_success(self, index: int) -> bool:
        return index in self._telling

    @cached_property
    def _telling(self) -> set[int]:
        """Demos that say whether they succeeded."""
        with open_hdf5(self.path) as file:
            return {index for index in range(len(self)) if "success" in self._demo(file, index).attrs}

    def _length(self, file: h5py.File, index: int) -> int:
        where = self.where(index)
        with hdf5_errors(where):
            demo = self._demo(file, index)
            if not self.is_foreign:
                return number_attribute(demo, "num_samples", where)
            recorded = child_dataset(demo, "actions", where).shape[0]
            return last_step(demo, recorded, self.dones, where) + 1

    def _load(self, opened: h5py.File, index: int) -> Episode:
        with hdf5_errors(self.where(index)):
            return self._read_demo(self._demo(opened, index), index)

    def _read_demo(self, demo: h5py.Group, index: int) -> Episode:
        where = self.where(index)
        actions = self._actions(demo, where)
        recorded = len(actions)
        if recorded == 0:
            raise DatasetError(f"{where}: expected at least one step, found none; remove the episode")
        declared = demo.attrs.get("num_samples", recorded)
        if declared != recorded:
            raise DatasetError(f"{where}: num_samples says {declared} steps, actions has {recorded}; remove the episode")
        length = last_step(demo, recorded, self.dones, where) + 1
        rewards = _rewards(demo, recorded, where)
        if rewards.shape != (recorded,):
            raise DatasetError(f"{where}: rewards expected shape {(recorded,)}, found {rewards.shape}; remove the episode")
        terminated, truncated = ends(demo, recorded, self.dones, where)
        success = self._success(demo, rewards[:length], terminated, index)
        if terminated and not success and not says_how_it_ended(demo):
            terminated, truncated = False, True  # `dones` also marks where a log ran out
        frames = FrameReader(demo, recorded, length, where)
        return Episode(
            images={camera: frames.read(key, camera) for camera, key in self._camera_keys.items()},
            proprio=self._chosen(frames.read_joined(self._proprio_keys), where),
            actions=actions[:length],
            rewards=rewards[:length],
            terminated=last_only(length, terminated),
            truncated=last_only(length, truncated),
            timestamps=child_dataset(demo, "timestamps", where)[()] if has_child(demo, "timestamps") else None,
            instruction=text_attribute(demo, "instruction", where) if "instruction" in demo.attrs else "",
            success=success,
            has_final_observation=frames.has_final,
            info=_info(demo, where),
        )

    def _actions(self, demo: h5py.Group, where: str) -> np.ndarray:
        """float32 (T, n) in [-1, 1]. Those of another width stay as they are, for `check_episode` to refuse."""
        actions = low_dim(child_dataset(demo, "actions", where), where)
        fits = actions.ndim == 2 and actions.shape[1] == len(self.action_spec)
        return actions if self._is_scaled or not fits else self.action_spec.to_scaled(actions)

    def _measured_extremes(self) -> tuple[np.ndarray, np.ndarray] | None:
        if not self.is_foreign:
            return None
        with open_hdf5(self.path) as file:
            wheres = (self.where(index) for index in range(len(self)))
            parts = (low_dim(child_dataset(self._demo(file, i), "actions", at), at) for i, at in enumerate(wheres))
            return extremes(parts, len(self.action_spec))

    def _chosen(self, proprio: np.ndarray, where: str) -> np.ndarray:
        """The values that are kept. Of others than the file names, columns would be wrong ones."""
        if self._kept is None:
            return proprio
        if proprio.shape[1] != self._width:
            raise DatasetError(f"{where}: proprio expected {self._width} values, found {proprio.shape[1]}; remove the episode")
        return proprio[:, self._kept]

    def _success(self, demo: h5py.Group, rewards: np.ndarray, terminated: bool, index: int) -> bool:
        """What the file says; else the option; else the rewards; without any, whether the task ended."""
        if "success" in demo.attrs:
            return bool(demo.attrs["success"])
        if self._successes is not None:
            return _number(self.names[index]) in self._successes
        if has_child(demo, "rewards"):
            return success_of_rewards(rewards, self.where(index))
        return terminated and has_child(demo, "dones")  # without either nothing tells, and all would be successes


def _demo_names(data: h5py.Group, path: Path) -> list[str]:
    """Sorted by number: demo_10 comes after demo_9."""
    names = [name for name in child_names(data) if re.fullmatch(r"demo_[0-9]{1,15}", name)]
    if not names:
        raise DatasetError(
            f"{path}: expected groups /data/demo_<i>, found {child_names(data)[:5]}; this is not the format's layout"
        )
    return sorted(names, key=_number)


def _number(name: str) -> int:
    return int(name.removeprefix("demo_"))


def _filtered(names: Sequence[str], file: h5py.File, key: str, where: str) -> list[str]:
    """The demos of a mask, in the order of the file."""
    masks = child_group(file, "mask", where) if has_child(file, "mask") else None
    if masks is None or not has_child(masks, key):
        there = sorted(child_names(masks)) if masks is not None else []
        raise ConfigError(f"{where}: filter_key expected one of {there}, found '{key}'; choose one, or read all episodes")
    wanted = set(text_rows(masks, key, where))
    missing = sorted(wanted.difference(names))
    if missing or not wanted:
        found = f"{missing[:5]}, which are not there" if missing else "none"
        raise DatasetError(f"{where}: mask '{key}' expected names of demos of this file, found {found}; restore the mask")
    return [name for name in names if name in wanted]


def _info(demo: h5py.Group, where: str) -> dict[str, Any]:
    info = json_attribute(demo, "info", where) if "info" in demo.attrs else {}
    if not isinstance(info, dict):
        raise DatasetError(f"{where}: info expected a JSON object, found {type(info).__name__}; remove the episode")
    return info


def _rewards(demo: h5py.Group, recorded: int, where: str) -> np.ndarray:
    """Zeros for a demonstration that carries none: rewards may then follow from success (see `views.success_rewards`)."""
    if not has_child(demo, "rewards"):
        return np.zeros(recorded, np.float32)
    return low_dim(child_dataset(demo, "rewards", where), where)

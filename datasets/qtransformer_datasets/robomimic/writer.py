"""Writing robomimic HDF5 so that a killed collection loses at most the episode being written.

HDF5 cannot promise that of one growing file: a kill in the middle of a flush tears its index. So every demo is first a
small HDF5 file of its own in the folder `<path>.partial/`, published by rename, and `finish` copies them (compressed
chunks as they are) into one file that appears at `<path>` in one step:

    /data            attrs: total, and as JSON env_args, action_spec, observation_spec, instructions, attributes
    /data/demo_<i>   attrs: num_samples, success, seed, instruction, info (JSON); terminated, truncated (last step)
        actions (T, n) f4 in [-1, 1]      rewards (T,) f4      dones (T,) i8 = terminated or truncated
        timestamps (T + 1,) f8 [s], where the log has them
        states (T, 2 + n + p) f8 = seed, step, action that led here, proprioception, where the episode's seed is known
        obs/proprio (T, p) f4             obs/<camera>_image (T, h, w, 3) u1
        next_obs/<key> (1, ...)           only the row after the last action (attr rows = "last"); absent where lost
    /mask/train, /mask/valid              names of demos; every tenth is for validation

robomimic reads it as it is, with `hdf5_load_next_obs=False`; from `states` a simulator whose episodes follow from their seed
plays it back (`qtransformer_sim.robomimic_env`).
"""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.hdf5_guard import child_group, hdf5_errors, number_attribute, text_attribute
from qtransformer_datasets.episodes.parts import plain_json, refuse_unfinished
from qtransformer_datasets.episodes.parts_writer import PartsWriter

FORMAT_VERSION = 1
CHUNK_FRAMES = 32
"""Image rows per compressed chunk: most grasps are one chunk; one lost chunk costs little of a long episode."""
_HDF5_VERSION = ("v110", "v110")
"""Compact groups and single-chunk indices keep a demo's bookkeeping small; readable since HDF5 1.10 (2016)."""
_VALID_EVERY = 10
ENV_TYPE = 100
"""The number by which robomimic finds our simulator, if `qtransformer_sim.robomimic_env` has told it."""


class HDF5Writer(PartsWriter):
    """Writes one robomimic HDF5 file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Start a new file. `attributes` is free JSON-able provenance: recipe, seed, versions, env_name, env_kwargs."""
        path = Path(path)
        refuse_unfinished(path, "HDF5Writer")
        self._open(path, action_spec, observation_spec, attributes)

    @classmethod
    def open_or_resume(
        cls,
        path: str | os.PathLike[str],
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None = None,
    ) -> "HDF5Writer":
        """Continue what a killed run left, or start. Refuses, naming the field, if specs or attributes differ."""
        writer = cls.__new__(cls)
        writer._open(Path(path), action_spec, observation_spec, attributes)
        return writer

    def _open(
        self,
        path: Path,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self._begin(path, action_spec, observation_spec, attributes, {"format_version": FORMAT_VERSION}, "demo_0.hdf5")

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return hdf5_errors(where)

    def _write_part(self, fresh: Path, episode: Episode, where: str) -> None:
        with h5py.File(fresh, "w", libver=_HDF5_VERSION) as file:
            _write_demo(file.create_group(self._parts[len(self)].stem), episode)

    def _merge(self, merged: Path) -> None:
        with h5py.File(merged, "w", libver=_HDF5_VERSION) as file:
            self._join(file)

    def _join(self, file: h5py.File) -> None:
        data = file.create_group("data")
        total, instructions = 0, dict[str, None]()
        for index in range(len(self)):
            name = self._parts[index].stem
            with h5py.File(self._parts[index], "r") as part:
                part.copy(name, data)
            demo = child_group(data, name, name)
            total += number_attribute(demo, "num_samples", name)
            instructions[text_attribute(demo, "instruction", name)] = None
        data.attrs["total"] = total
        for name, value in self._recipe.items():
            _write_text(data, name, json.dumps(value))
        _write_text(data, "instructions", json.dumps(list(instructions)))
        _write_text(data, "env_args", json.dumps(_env_args(self._recipe["attributes"], self.observation_spec)))
        names = np.array([f"demo_{i}" for i in range(len(self))], "S")
        is_valid = np.arange(len(self)) % _VALID_EVERY == _VALID_EVERY - 1
        file["mask/train"], file["mask/valid"] = names[~is_valid], names[is_valid]


def _write_demo(demo: h5py.Group, episode: Episode) -> None:
    info = plain_json(episode.info, "info")
    demo.attrs["num_samples"] = len(episode)
    demo.attrs["success"] = bool(episode.success)
    demo.attrs["seed"] = seed = info["seed"] if isinstance(info.get("seed"), int) else -1
    _write_text(demo, "instruction", episode.instruction)
    _write_text(demo, "info", json.dumps(info))
    demo.attrs["terminated"] = bool(episode.terminated[-1])
    demo.attrs["truncated"] = bool(episode.truncated[-1])
    _write_array(demo, "actions", episode.actions)
    _write_array(demo, "rewards", episode.rewards)
    _write_array(demo, "dones", (episode.terminated | episode.truncated).astype(np.int64))
    if episode.timestamps is not None:
        _write_array(demo, "timestamps", episode.timestamps)
    if seed >= 0:
        _write_array(demo, "states", _states(episode, seed))
    frames = {"proprio": episode.proprio} | {f"{camera}_image": rows for camera, rows in episode.images.items()}
    obs = demo.create_group("obs")
    for key, rows in frames.items():
        _write_array(obs, key, rows[:-1])
    if episode.has_final_observation:
        next_obs = demo.create_group("next_obs")
        next_obs.attrs["rows"] = "last"
        for key, rows in frames.items():
            _write_array(next_obs, key, rows[-1:])


def _write_text(group: h5py.Group, name: str, text: str) -> None:
    """As a string of fixed length: HDF5 keeps others on a heap, and a damaged heap sends its reader into an endless loop."""
    data = text.encode()
    if b"\0" in data:
        raise ValueError(f"{name} contains a NUL character, which ends a string in HDF5")
    group.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def _write_array(group: h5py.Group, name: str, rows: np.ndarray) -> None:
    """Chunked with checksums, so that a flipped bit is an error and not a pixel. Why gzip-1: bench_loader.py."""
    if rows.size == 0:  # no proprioception: HDF5 has no chunks of nothing
        group.create_dataset(name, data=rows)
        return
    if rows.dtype == np.uint8:
        chunks = (min(len(rows), CHUNK_FRAMES), *rows.shape[1:])
        group.create_dataset(name, data=rows, chunks=chunks, fletcher32=True, compression="gzip", compression_opts=1)
    else:
        group.create_dataset(name, data=rows, chunks=rows.shape, fletcher32=True)


def _states(episode: Episode, seed: int) -> np.ndarray:
    """What robomimic's playback sets and compares, (T, 2 + n + p) float64; before the first step the action counts as zero."""
    steps = np.arange(len(episode))
    before = np.concatenate([np.zeros_like(episode.actions[:1]), episode.actions[:-1]])
    return np.column_stack([np.full(len(episode), seed), steps, before, episode.proprio[:-1]]).astype(np.float64)


def _env_args(attributes: Mapping[str, Any], spec: ObservationSpec) -> dict[str, Any]:
    """What robomimic rebuilds an environment from: those of a foreign file are handed on, else how ours is made."""
    if isinstance(attributes.get("env_args"), Mapping):
        return dict(attributes["env_args"])
    kwargs = {"control_freq": spec.control_hz} | dict(attributes.get("env_kwargs") or {})
    return {"env_name": str(attributes.get("env_name", "")), "type": ENV_TYPE, "env_kwargs": kwargs}

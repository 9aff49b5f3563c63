"""The specs of a robomimic file that carries none, as far as its arrays tell them."""

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets.episodes.hdf5_guard import child_dataset, child_names
from qtransformer_datasets.episodes.limits import Limits, given_limits

SIMULATOR_TRUTH = ("object",)
"""Keys that only a simulator knows; a policy that reads them cannot run on a robot."""


def infer_action_spec(actions: h5py.Dataset, limits: Limits | None, where: str) -> ActionSpec:
    """Dimensions a0, a1, ... without unit, in [-1, 1] where nothing else is given: robomimic's convention is not in the file."""
    if actions.ndim != 2 or not 0 < actions.shape[1] < 1000:
        raise DatasetError(f"{where}: actions expected shape (T, n), found {actions.shape}; this is not the format's layout")
    n = actions.shape[1]
    names = tuple(f"a{i}" for i in range(n))
    given = given_limits(limits, names, where)
    low, high = zip(*(given.get(name, (-1.0, 1.0)) for name in names), strict=True)
    return ActionSpec(names=names, low=low, high=high, units=("1",) * n, discrete=(0,) * n)


def proprio_keys(obs: h5py.Group, chosen: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Keys of the low-dimensional observations, (T,) or (T, d)."""
    available = [key for key in child_names(obs) if child_dataset(obs, key, where).ndim in (1, 2)]
    if chosen is None:
        return tuple(key for key in available if key not in SIMULATOR_TRUTH)
    check_proprio(chosen, available, where)
    return tuple(chosen)


def check_proprio(chosen: Sequence[str], available: Sequence[str], where: str) -> None:
    """Raise where something is chosen that is not there, or chosen twice."""
    missing = [key for key in chosen if key not in available]
    if missing or len(set(chosen)) < len(chosen):
        found = f"{missing}, not among them" if missing else "one of them twice"
        raise ConfigError(f"{where}: proprio expected some of {', '.join(available)}, found {found}; choose among these")


def infer_observation_spec(
    obs: h5py.Group,
    proprio: Sequence[str],
    control_hz: float,
    where: str,
) -> tuple[ObservationSpec, dict[str, str]]:
    """The spec, and for each camera the key under which its images lie."""
    keys = {key.removesuffix("_image"): key for key in child_names(obs) if is_camera(child_dataset(obs, key, where))}
    cameras = {camera: image_shape(child_dataset(obs, key, where), where) for camera, key in keys.items()}
    names = []
    for key in proprio:
        width = int(np.prod(child_dataset(obs, key, where).shape[1:]))
        names += [key] if width == 1 else [f"{key}[{i}]" for i in range(width)]
    spec = ObservationSpec(
        cameras=cameras,
        proprio_names=tuple(names),
        proprio_units=("unknown",) * len(names),
        control_hz=control_hz,
    )
    return spec, keys


def is_camera(dataset: h5py.Dataset) -> bool:
    """Every uint8 array of four dimensions; float ones are depth unless their name says image."""
    return dataset.ndim == 4 and (dataset.dtype == np.uint8 or str(dataset.name).endswith("_image"))


def image_shape(images: h5py.Dataset, where: str) -> tuple[int, int, int]:
    if images.dtype != np.uint8:
        raise DatasetError(f"{where}: {images.name} expected uint8 RGB, found {images.dtype}; convert to 0..255")
    height, width, channels = images.shape[1:]
    if channels != 3:
        order = "channels first" if height == 3 else f"{channels} channels"
        raise DatasetError(
            f"{where}: {images.name} expected images (h, w, 3), found {order} {images.shape[1:]}; convert to RGB, channels last"
        )
    return height, width, channels


def told_control_hz(env_args: Any) -> float | None:
    """Rate of control [Hz], where the file says it."""
    kwargs = env_args.get("env_kwargs") if isinstance(env_args, Mapping) else None
    frequency = kwargs.get("control_freq") if isinstance(kwargs, Mapping) else None
    return float(frequency) if isinstance(frequency, int | float) and 0 < frequency < float("inf") else None

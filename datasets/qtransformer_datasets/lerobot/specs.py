"""The specs of a LeRobotDataset that carries none, from its features, its numbers and what the user adds by name."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from qtransformer.errors import DatasetError
from qtransformer.suggest import nearest
from qtransformer.types import ActionSpec
from qtransformer_datasets.episodes.limits import Limits, check_names, given_limits, typed_limits
from qtransformer_datasets.episodes.wild_values import WildValue, WildValues, warn_of_stretched_limits
from qtransformer_datasets.lerobot.episode_rows import EPISODE
from qtransformer_datasets.lerobot.layout import Feature, Layout
from qtransformer_datasets.lerobot.parquet_guard import integers, numbers

MAX_IMAGE_BYTES = 1 << 28


class ColumnRange:
    """Smallest and largest finite value per dimension of a column, over all files it is shown, and those far off all others."""

    def __init__(self, feature: Feature, where: str) -> None:
        self._feature, self._where = feature, where
        self.low, self.high = np.full(feature.width, np.inf), np.full(feature.width, -np.inf)
        self.wild = WildValues(value_names([feature]))

    def include(self, table: pa.Table) -> None:
        rows = numbers(table, self._feature.key, self._feature.width, self._where).astype(np.float64)
        finite = np.isfinite(rows)
        self.low = np.minimum(self.low, np.where(finite, rows, np.inf).min(0))
        self.high = np.maximum(self.high, np.where(finite, rows, -np.inf).max(0))
        episodes = integers(table, EPISODE, self._where)
        first_rows = np.flatnonzero(np.diff(episodes, prepend=episodes[0] - 1))
        at = np.arange(len(rows))
        self.wild.include(rows, episodes, at - first_rows[np.searchsorted(first_rows, at, "right") - 1])


def feature_of(layout: Layout, key: str, option: str) -> Feature:
    """The feature of that name, which must be numbers."""
    numeric = [name for name, feature in layout.features.items() if not feature.is_camera and feature.dtype != "string"]
    if key not in numeric:
        near = nearest(key, numeric)
        hint = f"did you mean {near}? " if near else ""
        raise DatasetError(f"{layout.root}: expected a feature '{key}', found {numeric}; {hint}name another: {option}=...")
    feature = layout.features[key]
    if not 0 < feature.width < 10_000:
        raise DatasetError(f"{layout.root}: feature '{key}' expected up to 10000 numbers, found shape {feature.shape}; correct it")
    return feature


def camera_features(layout: Layout, chosen: Sequence[str] | None) -> dict[str, Feature]:
    """Cameras by name, in the order of `chosen`. Depth maps are no RGB images: skipped, with a warning."""
    found: dict[str, Feature] = {}
    for feature in layout.features.values():
        if not feature.is_camera:
            continue
        if feature.is_depth:
            warnings.warn(f"{layout.root}: '{feature.key}' is a depth map and is skipped: only RGB cameras are read", stacklevel=4)
            continue
        if feature.camera in found:
            raise DatasetError(
                f"{layout.root}: '{feature.key}' and '{found[feature.camera].key}' are both camera '{feature.camera}'; rename one"
            )
        found[feature.camera] = feature
    if chosen is None:
        return found
    check_names(chosen, found, f"{layout.root}: cameras")
    return {name: found[name] for name in chosen}


def image_shape(feature: Feature, where: str) -> tuple[int, int, int]:
    """(h, w, 3), whichever way round the file tells it."""
    shape, names = feature.shape, feature.names or ()
    first = len(shape) == 3 and (names[0].startswith("c") if len(names) == 3 else shape[0] == 3 and shape[2] != 3)
    height, width, channels = (*shape[1:], shape[0]) if first else shape if len(shape) == 3 else (0, 0, 0)
    if channels != 3 or not 0 < height * width * 3 <= MAX_IMAGE_BYTES:
        raise DatasetError(
            f"{where}: camera '{feature.camera}' expected RGB images (h, w, 3), found shape {shape}; leave it out: cameras=[...]"
        )
    return height, width, channels


def value_names(features: Sequence[Feature]) -> tuple[str, ...]:
    """One name per value; the feature's own where they fit (some files name axes instead), else `state_0`, `action_3`."""
    names: list[str] = []
    for feature in features:
        own = feature.names or ()
        names += own if _fits(own, feature) else _numbered(feature)
    if len(set(names)) < len(names):  # two features name the same joints: their positions and their efforts
        names = [f"{f.key}.{name}" for f in features for name in value_names([f])]
    return tuple(names)


def warn_of_lost_names(features: Sequence[Feature], where: str) -> None:
    """Of names that are not one per value, nor one per axis."""
    for feature in features:
        own = feature.names
        if own is None or _fits(own, feature) or len(own) == len(feature.shape):
            continue
        found = f"{len(own)}" if len(set(own)) == len(own) else f"{len(own)} of which some are the same"
        warnings.warn(
            f"{where}, meta/info.json: names of '{feature.key}' expected one for each of its {feature.width} values, found {found} "
            f"({', '.join(own[:4])}{', ...' if len(own) > 4 else ''}), so they are called "
            f"{_numbered(feature)[0]} and so on; correct the names",
            stacklevel=3,
        )


def _fits(names: Sequence[str], feature: Feature) -> bool:
    return len(names) == feature.width and len(set(names)) == len(names)


def _numbered(feature: Feature) -> list[str]:
    return [f"{feature.key.rsplit('.', 1)[-1]}_{i}" for i in range(feature.width)]


def action_spec(
    feature: Feature,
    measured: ColumnRange,
    limits: Limits | None,
    units: Mapping[str, str],
    discrete: Mapping[str, int],
    where: str,
) -> ActionSpec:
    """Limits are the extremes of the data unless given: then no logged action lies outside. A constant dimension gets 1 around."""
    names = value_names([feature])
    given = given_limits(limits, names, where)
    check_names(discrete, names, f"{where}: discrete")
    low, high = dict(zip(names, measured.low, strict=True)), dict(zip(names, measured.high, strict=True))
    for name in names:
        if not low[name] <= high[name]:
            raise DatasetError(f"{where}: action '{name}' expected at least one finite value, found none; repair the dataset")
        if low[name] == high[name]:
            margin = max(1.0, 1e-3 * abs(low[name]))
            low[name], high[name] = low[name] - margin, high[name] + margin
    warn_of_stretched_limits(measured.wild, given, lambda episode: f"{where}, episode {episode}", _repair)
    low |= {name: pair[0] for name, pair in given.items()}
    high |= {name: pair[1] for name, pair in given.items()}
    return ActionSpec(
        names=names,
        low=tuple(float(low[name]) for name in names),
        high=tuple(float(high[name]) for name in names),
        units=tuple(str(units.get(name, "1")) for name in names),
        discrete=tuple(int(discrete.get(name, 0)) for name in names),
    )


def _repair(wild: WildValue) -> str:
    return f"repair the step, or give limits beside it ({typed_limits([wild.name], [wild.low], [wild.high])},clip_actions:true)"

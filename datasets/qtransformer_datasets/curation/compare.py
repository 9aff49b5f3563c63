"""Whether a copy of a dataset is the same, number by number, and how good its images are where they are not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qtransformer.types import Episode
from qtransformer_datasets.curation.survey import Progress
from qtransformer_datasets.episodes.protocols import LoggedEpisodes

ARRAYS = ("proprio", "actions", "rewards", "terminated", "truncated", "timestamps")
LABELS = ("instruction", "success", "has_final_observation", "info")


@dataclass(frozen=True, slots=True)
class Quality:
    """Peak signal-to-noise ratio of images [dB]."""

    mean: float
    """Over all pixels of all episodes."""
    worst: float
    """Of the worst episode."""


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What differs between a dataset and its copy."""

    episodes: int
    differences: dict[str, str] = field(default_factory=dict)
    """Part (a field of `Episode`, a spec, `attributes`) to the first place where it differs."""
    psnr: dict[str, Quality] = field(default_factory=dict)
    """Of cameras whose images differ."""


def compare(original: LoggedEpisodes, copy: LoggedEpisodes, progress: Progress = iter) -> Comparison:
    """Read both and compare everything but the attributes that the copy has in addition."""
    found = Comparison(episodes=len(copy))
    for name in ("action_spec", "observation_spec"):
        old, new = getattr(original, name).to_dict(), getattr(copy, name).to_dict()
        _note(found, name, "; ".join(f"{k} was {v}, is {new[k]}" for k, v in old.items() if new[k] != v))
    lost = [
        key for key, value in original.attributes.items() if key != "derived" and _plain(copy.attributes.get(key)) != _plain(value)
    ]
    _note(found, "attributes", ", ".join(lost))
    if len(original) != len(copy):
        _note(found, "episodes", f"there were {len(original)}, there are {len(copy)}")
        return found
    errors: dict[str, list[tuple[float, int]]] = {}
    for index in progress(range(len(original))):
        old, new = original.read(index), copy.read(index)
        _compare_fields(found, old, new, f"episode {index}")
        for camera in old.images.keys() & new.images.keys():
            errors.setdefault(camera, []).append(_squared_error(old.images[camera], new.images[camera]))
        if old.images.keys() != new.images.keys():
            _note(found, "images", f"episode {index}: cameras were {sorted(old.images)}, are {sorted(new.images)}")
    for camera, each in sorted(errors.items()):
        if any(error > 0 for error, _ in each):
            _note(found, "images", f"camera {camera}")
            found.psnr[camera] = _quality(each)
    return found


def psnr(squared_error: float, count: int) -> float:
    """Peak signal-to-noise ratio [dB] of 8-bit values, from the sum of squared differences over `count` values."""
    return float("inf") if squared_error == 0 else float(10 * np.log10(255.0**2 * count / squared_error))


def _compare_fields(found: Comparison, old: Episode, new: Episode, where: str) -> None:
    for name in ARRAYS:
        a, b = getattr(old, name), getattr(new, name)
        if (a is None) != (b is None):
            _note(found, name, f"{where}: {'were there and are gone' if b is None else 'were not there and are'}")
        elif a is not None and (a.shape != b.shape or a.dtype != b.dtype):
            _note(found, name, f"{where}: {a.dtype} {a.shape} became {b.dtype} {b.shape}")
        elif a is not None and not np.array_equal(a, b):
            _note(found, name, f"{where}: by up to {np.abs(a.astype(np.float64) - b.astype(np.float64)).max():.3g}")
    for name in LABELS:
        a, b = _plain(getattr(old, name)), _plain(getattr(new, name))
        _note(found, name, f"{where}: {a} became {b}" if a != b else "")


def _squared_error(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    if a.shape != b.shape:
        return float("inf"), a.size
    error = sum(float(np.square(x.astype(np.float64) - y).sum()) for x, y in zip(a, b, strict=True) if not np.array_equal(x, y))
    return error, a.size


def _quality(errors: list[tuple[float, int]]) -> Quality:
    total, count = (sum(column) for column in zip(*errors, strict=True))
    return Quality(mean=psnr(total, int(count)), worst=min(psnr(*each) for each in errors))


def _note(found: Comparison, part: str, place: str) -> None:
    """The first place is kept."""
    if place:
        found.differences.setdefault(part, place)


def _plain(value: Any) -> Any:
    """As JSON gives it back: a tuple and a list are the same."""
    return json.loads(json.dumps(value, default=_item, sort_keys=True)) if isinstance(value, Mapping | list | tuple) else value


def _item(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)

"""Filter masks of a robomimic file: which demos are for what. robomimic's training reads them as `hdf5_filter_key`.

    /mask/<name>    names of demos; robomimic itself calls those for training and validation `train` and `valid`

Masks that `writer` or an earlier split made go together: one that stayed would overlap the new ones.

A file with other masks is a copy: whatever else somebody's file holds (states, models, further observations) stays as it is.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.hdf5_guard import child, child_group, has_child, hdf5_errors
from qtransformer_datasets.episodes.parts import EpisodeParts

DERIVED = "derived"
"""Attribute of /mask that says, as JSON, what its masks were made by; and of each of these, true."""


def copy_with_masks(
    source: Path, out: Path, masks: Mapping[str, Sequence[str]], derived: Mapping[str, Any], parts: Collection[str] = ()
) -> None:
    """A copy of a robomimic file with masks of these names, which appears at `out` in one step. Masks of other names stay.

    Args:
        source: the file, which is only read.
        out: where nothing lies yet.
        masks: name of each mask to the names of its demos.
        derived: what the file says of their making, as JSON can hold it.
        parts: names that a split may give: a mask of these that is ours goes, also where `masks` has none of its name.

    Raises:
        DatasetError: something lies at `out`, it cannot be written, or the masks of the file are not stored as the format has them.
    """
    fresh = EpisodeParts(out, derived, "demo_0.hdf5")
    copy = fresh.folder / "masked.hdf5"
    try:
        shutil.copyfile(source, copy)
        with hdf5_errors(str(source)), h5py.File(copy, "r+") as file:
            _put_masks(file, masks, derived, parts, str(source))
        fresh.publish(copy)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written ({error}); check its folder and the space on that disk") from error
    finally:
        fresh.close()
        shutil.rmtree(fresh.folder, ignore_errors=True)


def _put_masks(
    file: h5py.File, masks: Mapping[str, Sequence[str]], derived: Mapping[str, Any], parts: Collection[str], where: str
) -> None:
    group = child_group(file, "mask", where) if has_child(file, "mask") else file.create_group("mask")
    is_own_file = "observation_spec" in child_group(file, "data", where).attrs
    for name in {*masks, *parts}:
        if has_child(group, name) and (name in masks or is_own_file or DERIVED in child(group, name, where).attrs):
            del group[name]
    for name, demos in masks.items():
        group.create_dataset(name, data=np.array(demos, "S")).attrs[DERIVED] = True
    group.attrs[DERIVED] = np.bytes_(json.dumps(dict(derived)).encode())

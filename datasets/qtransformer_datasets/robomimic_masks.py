"""Filter masks of a robomimic file: which demos are for what. robomimic's training reads them as `hdf5_filter_key`.

    /mask/<name>    names of demos; robomimic itself calls those for training and validation `train` and `valid`

A file with other masks is a copy: whatever else somebody's file holds (states, models, further observations) stays as it is.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.episode_parts import EpisodeParts
from qtransformer_datasets.hdf5_guard import child_group, has_child, hdf5_errors

DERIVED = "derived"
"""Attribute of /mask that says, as JSON, what its masks were made by."""


def copy_with_masks(source: Path, out: Path, masks: Mapping[str, Sequence[str]], derived: Mapping[str, Any]) -> None:
    """A copy of a robomimic file with masks of these names, which appears at `out` in one step. Masks of other names stay.

    Args:
        source: the file, which is only read.
        out: where nothing lies yet.
        masks: name of each mask to the names of its demos.
        derived: what the file says of their making, as JSON can hold it.

    Raises:
        DatasetError: something lies at `out`, it cannot be written, or the masks of the file are not stored as the format has them.
    """
    parts = EpisodeParts(out, derived, "demo_0.hdf5")
    copy = parts.folder / "masked.hdf5"
    try:
        shutil.copyfile(source, copy)
        with hdf5_errors(str(source)), h5py.File(copy, "r+") as file:
            _put_masks(file, masks, derived, str(source))
        parts.publish(copy)
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written ({error}); check its folder and the room on that disk") from error
    finally:
        parts.close()
        shutil.rmtree(parts.folder, ignore_errors=True)


def _put_masks(file: h5py.File, masks: Mapping[str, Sequence[str]], derived: Mapping[str, Any], where: str) -> None:
    group = child_group(file, "mask", where) if has_child(file, "mask") else file.create_group("mask")
    for name, demos in masks.items():
        if has_child(group, name):
            del group[name]
        group.create_dataset(name, data=np.array(demos, "S"))
    group.attrs[DERIVED] = np.bytes_(json.dumps(dict(derived)).encode())

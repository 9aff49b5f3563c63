"""How an episode of a robomimic file ended, and where: what the file says, or what its `dones` are told to mean."""

from typing import Literal

import h5py
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.hdf5_guard import child_dataset, has_child

Dones = Literal["terminated", "truncated"]
NO_DONES = "there are no `dones`, so every episode ends at its last step: say how"


def says_how_it_ended(demo: h5py.Group) -> bool:
    return "terminated" in demo.attrs and "truncated" in demo.attrs


def ends(demo: h5py.Group, recorded: int, dones: Dones | None, where: str) -> tuple[bool, bool]:
    """Whether the (possibly shortened) episode's last step terminated, and whether it was truncated."""
    if says_how_it_ended(demo):
        return bool(demo.attrs["terminated"]), bool(demo.attrs["truncated"])
    if dones is None:
        raise DatasetError(f"{where}: does not say how it ended; say what `dones` means: dones:terminated or dones:truncated")
    terminated = dones == "terminated" and bool(_dones(demo, recorded, where).any())
    return terminated, not terminated


def last_step(demo: h5py.Group, recorded: int, dones: Dones | None, where: str) -> int:
    """Index of the step that ends the episode."""
    last = recorded - 1
    if says_how_it_ended(demo):
        return last
    done = np.flatnonzero(_dones(demo, recorded, where))
    if not len(done) or done[0] == last:
        return last
    if dones == "truncated":
        raise DatasetError(
            f"{where}: dones read as a time limit is set at step {done[0]} of {last + 1}, before the end; "
            "it probably means success: use dones:terminated"
        )
    return int(done[0])


def _dones(demo: h5py.Group, recorded: int, where: str) -> np.ndarray:
    """Of every step; robomimic itself trains without them (`dataset_keys`), so a file may have none: the end is one, then."""
    if not has_child(demo, "dones"):
        return last_only(recorded, True)
    dones = child_dataset(demo, "dones", where)[()]
    if dones.shape != (recorded,):
        raise DatasetError(f"{where}: dones expected shape {(recorded,)}, found {dones.shape}; remove the episode")
    return dones.astype(bool)


def last_only(length: int, value: bool) -> np.ndarray:
    flags = np.zeros(length, bool)
    flags[-1] = value
    return flags

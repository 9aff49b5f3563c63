"""The rows of a demo's arrays: one per step, and of observations one more."""

from collections.abc import Sequence

import h5py
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.hdf5_guard import child_dataset, child_group, has_child


class FrameReader:
    """Rows 0 to `length` of a demo's observations: the last from `obs` if steps follow, else from `next_obs`."""

    def __init__(self, demo: h5py.Group, recorded: int, length: int, where: str) -> None:
        self.obs = child_group(demo, "obs", where)
        self.next_obs = child_group(demo, "next_obs", where) if has_child(demo, "next_obs") else None
        self.recorded, self.length, self.where = recorded, length, where
        self.has_final = length < recorded or self.next_obs is not None

    def read(self, key: str, camera: str | None = None) -> np.ndarray:
        source = child_dataset(self.obs, key, self.where)
        if source.ndim == 0 or len(source) != self.recorded:
            raise DatasetError(
                f"{self.where}: obs/{key} expected {self.recorded} rows, one per action, found shape "
                f"{source.shape}; remove the episode"
            )
        rows = np.empty((self.length + 1, *source.shape[1:]), source.dtype if camera else np.float32)
        if self.length < self.recorded:
            rows[:] = source[: self.length + 1]
        else:
            with np.errstate(over="ignore"):  # as in low_dim
                rows[:-1] = source[()]
            rows[-1] = self._last_row(key, source.shape[1:]) if self.has_final else rows[-2]
        return rows

    def read_joined(self, keys: Sequence[str]) -> np.ndarray:
        """Low-dimensional keys side by side, (length + 1, p) float32."""
        if not keys:
            return np.zeros((self.length + 1, 0), np.float32)
        return np.concatenate([self.read(key).reshape(self.length + 1, -1) for key in keys], axis=1)

    def _last_row(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        assert self.next_obs is not None
        source = child_dataset(self.next_obs, key, self.where)
        if source.ndim == 0 or len(source) not in (1, self.recorded) or source.shape[1:] != shape:
            raise DatasetError(
                f"{self.where}: next_obs/{key} expected 1 or {self.recorded} rows of shape {shape}, "
                f"found {source.shape}; remove the episode"
            )
        return source[-1]


def low_dim(dataset: h5py.Dataset, where: str) -> np.ndarray:
    if dataset.ndim == 0:
        raise DatasetError(f"{where}: {dataset.name} expected one row per step, found a single number; remove the episode")
    with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, which check_episode reports
        return dataset[()].astype(np.float32, copy=False)

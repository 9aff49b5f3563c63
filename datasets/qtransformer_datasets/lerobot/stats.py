"""The statistics that LeRobot keeps of every feature, exact over all frames; those of images come from histograms."""

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def column_stats(rows: np.ndarray) -> dict[str, Any]:
    """Of (N, d) numbers, per dimension."""
    values = rows.astype(np.float64)
    stats = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    stats |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
    return {name: value.tolist() for name, value in stats.items()} | {"count": [len(rows)]}


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel of uint8 (N, h, w, 3), int64 (3, 256)."""
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])


def image_stats(counts: np.ndarray, frames: int) -> dict[str, Any]:
    """Of a `histogram`, per channel and with values in [0, 1]; LeRobot's shape (3, 1, 1)."""
    values, total = np.arange(256) / 255.0, counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0.0))
    seen = counts > 0
    stats = {"min": values[seen.argmax(1)], "max": values[255 - seen[:, ::-1].argmax(1)], "mean": mean, "std": std}
    reached = counts.cumsum(1) / total[:, None]
    stats |= {name: values[(reached >= share).argmax(1)] for name, share in QUANTILES.items()}
    return {name: value.reshape(3, 1, 1).tolist() for name, value in stats.items()} | {"count": [frames]}

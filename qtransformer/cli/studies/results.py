"""Results of finished cells: two CSV files that are committed as they grow, and that several processes may write to at once."""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from qtransformer.errors import ConfigError

CELLS, CURVES = "cells.csv", "curves.csv"
CELL_FIELDS = (
    "cell", "data", "data_success", "overrides", "seed", "algo", "value", "steps", "train_seconds", "split", "first_scene",
    "episodes", "success", "outcomes", "mean_steps", "q_start", "date", "commit", "machine", "command",
)  # fmt: skip
CURVE_FIELDS = (
    "cell", "step", "validation_success", "q_start", "return_start", "td_loss", "behavior_loss", "bootstrap_exceeds_floor",
)  # fmt: skip


def append(path: Path, fields: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> None:
    """Add rows in one write, under a lock; the head comes with the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        head = file.readline().strip()
        if head and head != ",".join(fields):
            raise ConfigError(f"{path}: expected the columns {','.join(fields)}, found {head}; move it away or mend its head")
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        if not head:
            writer.writeheader()
        writer.writerows(rows)
        file.seek(0, os.SEEK_END)
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a file; none where it is missing. A line cut off by a kill is passed over."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and None not in row]


def outcomes(row: Mapping[str, str]) -> np.ndarray:
    """Which scenes succeeded, bool (episodes,)."""
    return np.array([mark == "1" for mark in row["outcomes"]])

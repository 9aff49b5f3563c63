"""Results of finished cells: CSV files that are committed as they grow, and that several processes may write to at once."""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from qtransformer.errors import ConfigError
from qtransformer.files import explained_storage_errors

CELLS, CURVES, PROBES = "cells.csv", "curves.csv", "probes.csv"
CELL_FIELDS = (
    "cell", "data", "data_success", "overrides", "seed", "algo", "value", "steps", "train_seconds", "split", "first_scene",
    "episodes", "success", "outcomes", "mean_steps", "q_start", "date", "commit", "machine", "command",
)  # fmt: skip
METRICS = ("validation_success", "q_start", "return_start", "td_loss", "behavior_loss", "bootstrap_exceeds_floor")
CURVE_FIELDS = ("cell", "step", *METRICS)
PROBE_FIELDS = ("cell", "data", "trained", "own", "untrained", "date", "commit")

Row = dict[str, str]


def append(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> None:
    """Add rows in one write, under a lock; the head comes with the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained_storage_errors(path), path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        head = text.partition("\n")[0]
        if text and head != ",".join(columns):
            raise ConfigError(f"{path}: expected the columns {','.join(columns)}, found {head}; move it away or mend its head")
        lines = io.StringIO()
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        if not text:
            writer.writeheader()
        writer.writerows(rows)
        file.truncate(len(_whole_lines(text).encode()))  # a line that a kill cut off must not swallow these
        file.write(lines.getvalue())
        file.flush()
        os.fsync(file.fileno())


def read_cells(out: Path) -> dict[str, Row]:
    """Finished cells by their identity."""
    return {row["cell"]: row for row in _read(out / CELLS, CELL_FIELDS)}


def read_probes(out: Path, episodes: str) -> dict[str, Row]:
    """Probes of finished cells on these episodes, by the cells' identity."""
    return {row["cell"]: row for row in _read(out / PROBES, PROBE_FIELDS) if row["data"] == episodes}


def finished(out: Path, probed_on: str | None) -> set[str]:
    """Identities of the cells that a study need not run; one that probes wants their probes, too."""
    judged = set(read_cells(out))
    return judged if probed_on is None else judged & read_probes(out, probed_on).keys()


def on_a_core(row: Mapping[str, str]) -> bool:
    """Whether a cell was trained on a processor's core: the seconds of a GPU say nothing of it."""
    return "device=cpu" in row["command"]


def read_curves(out: Path) -> dict[str, list[Row]]:
    """Points of the learning curves by cell, in the order of their steps."""
    points = {(row["cell"], int(row["step"])): row for row in _read(out / CURVES, CURVE_FIELDS)}
    curves: dict[str, list[Row]] = {}
    for cell, step in sorted(points):
        curves.setdefault(cell, []).append(points[cell, step])
    return curves


def _read(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Rows of a file; none where it is missing. A line that a kill cut off is passed over."""
    if not path.exists():
        return []
    rows = list(csv.reader(_whole_lines(path.read_text()).splitlines()))
    if rows and tuple(rows[0]) != columns:
        raise ConfigError(f"{path}: expected the columns {','.join(columns)}, found {','.join(rows[0])}; restore its head")
    return [dict(zip(columns, row, strict=True)) for row in rows[1:] if len(row) == len(columns)]


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]

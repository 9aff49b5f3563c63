"""Parquet files whose rows belong to episodes, found by the value of `episode_index` and never by position."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from qtransformer.errors import DatasetError
from qtransformer_datasets.lerobot.parquet_guard import integers, open_parquet, parquet_errors

EPISODE = "episode_index"


@dataclass(frozen=True, slots=True)
class RowRange:
    """The rows of one episode in its file."""

    file: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def index_rows(
    files: Iterable[Path], also: Callable[[pa.Table], None] | None = None, columns: Sequence[str] = ()
) -> dict[int, RowRange]:
    """Where each episode lies, in the order of their indices. `also` is shown `columns` of every file on the way."""
    found: dict[int, RowRange] = {}
    for path in tqdm(files, desc="index episodes", unit="file", disable=None, delay=2, leave=False):
        with open_parquet(path) as file, parquet_errors(str(path)):
            table = file.read(columns=[EPISODE, *columns])
        episodes = integers(table, EPISODE, str(path))
        starts = np.flatnonzero(np.diff(episodes, prepend=episodes[:1] - 1))
        for start, stop in zip(starts, [*starts[1:], len(episodes)], strict=True):
            episode, rows = int(episodes[start]), RowRange(path, int(start), int(stop))
            if episode in found:
                raise DatasetError(
                    f"{path}: episode {episode} begins at row {start}, but has rows from "
                    f"{found[episode].start} on of {found[episode].file.name} too; each episode needs one index: remove one of them"
                )
            found[episode] = rows
        if also is not None and len(table):
            also(table)
    return dict(sorted(found.items()))


class RowReader:
    """Reads episodes from their files; keeps the file and row group it read last, which often hold the next episode too."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self._path: Path | None = None
        self._file: pq.ParquetFile | None = None
        self._group: tuple[int, pa.Table] | None = None

    def read(self, rows: RowRange, where: str) -> pa.Table:
        """All rows of an episode; errors start with `where`."""
        with parquet_errors(f"{where}, {rows.file.name}"):
            file = self._open(rows.file)
            pieces, start = [], 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if start < rows.stop and rows.start < stop:
                    table = self._read_group(file, group)
                    pieces.append(table.slice(max(rows.start - start, 0), min(rows.stop, stop) - max(rows.start, start)))
                start = stop
            return pa.concat_tables(pieces)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = self._group = None

    def _open(self, path: Path) -> pq.ParquetFile:
        if self._file is None or path != self._path:
            self.close()
            self._file, self._path = open_parquet(path), path
        return self._file

    def _read_group(self, file: pq.ParquetFile, group: int) -> pa.Table:
        if self._group is None or self._group[0] != group:
            known = [name for name in self.columns if name in file.schema_arrow.names]
            self._group = group, file.read_row_group(group, columns=known)
        return self._group[1]


@contextmanager
def row_reader(columns: Sequence[str]) -> Iterator[RowReader]:
    reader = RowReader(columns)
    try:
        yield reader
    finally:
        reader.close()

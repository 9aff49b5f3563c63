"""Reading parquet that somebody else wrote: page checksums are verified, and no size is believed unchecked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets.episodes.missing import check_file
from qtransformer_datasets.lerobot.parquet_footer import declared_sizes

MAX_RATIO = 1100
"""Declared over stored bytes beyond which a column is a bomb: deflate reaches 1032."""
_SLACK_BYTES = 1 << 20


@contextmanager
def parquet_errors(where: str) -> Iterator[None]:
    """Turn pyarrow's errors into a DatasetError that starts with `where`."""
    try:
        yield
    except QTransformerError:
        raise
    except PermissionError as error:
        raise DatasetError(f"{where}: cannot be opened ({error}); fix its permissions") from error
    except Exception as error:  # damage surfaces as nearly any type: ArrowInvalid, OSError, ValueError, UnicodeDecodeError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "magic bytes" in reason:
            raise DatasetError(
                f"{where}: the parquet file has no end ({reason}): its writer was killed or the copy was cut off; "
                "copy it again, or let the tool that wrote it recover it"
            ) from error
        raise DatasetError(f"{where}: damaged parquet ({reason}); restore it from its source") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, with its signature and the sizes that it declares checked."""
    check_file(path, "a parquet file")
    with parquet_errors(str(path)):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        _check_sizes(path)
        return file


def numbers(table: pa.Table, name: str, width: int, where: str) -> np.ndarray:
    """A column of numbers, or of lists (of lists) of `width` numbers, as (rows, width) in its own dtype."""
    column = _column(table, name, where)
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type) or pa.types.is_large_list(column.type):
        values = column.flatten()
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if column.null_count or len(values) % max(len(column), 1) or (lengths != len(values) // max(len(column), 1)).any():
            raise DatasetError(
                f"{where}: column '{name}' expected lists of one length, found several; repair or remove the episode"
            )
        column = values
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)) or column.null_count:
        raise DatasetError(
            f"{where}: column '{name}' expected numbers, found {kind} with {column.null_count} empty; repair or remove the episode"
        )
    array = column.to_numpy(zero_copy_only=False)
    if len(array) != len(table) * width:
        raise DatasetError(
            f"{where}: column '{name}' expected {width} values per row as meta/info.json says, "
            f"found {len(array) / max(len(table), 1):g}; correct the feature's shape"
        )
    return array.reshape(len(table), width)


def integers(table: pa.Table, name: str, where: str) -> np.ndarray:
    """A column of whole numbers, (rows,)."""
    column = numbers(table, name, 1, where)[:, 0]
    if column.dtype.kind not in "iu":
        raise DatasetError(f"{where}: column '{name}' expected whole numbers, found {column.dtype}; repair the dataset")
    return column


def values(table: pa.Table, name: str, where: str) -> list[Any]:
    """A column as Python values."""
    return _column(table, name, where).to_pylist()


def _column(table: pa.Table, name: str, where: str) -> pa.Array:
    if name not in table.column_names:
        raise DatasetError(f"{where}: expected a column '{name}', found {table.column_names}; this is not LeRobot's layout")
    return table.column(name).combine_chunks()


def _check_sizes(path: Path) -> None:
    """Held against the file's own size: a row needs a byte somewhere, and no compression is better than deflate at its best."""
    declared, size = declared_sizes(path), path.stat().st_size
    if not 0 <= declared.rows <= size or declared.bytes > MAX_RATIO * size + _SLACK_BYTES:
        raise DatasetError(
            f"{path}: declares {declared.rows} rows of {declared.bytes} bytes in a file of {size}; "
            "the file is damaged or hostile: do not use it"
        )

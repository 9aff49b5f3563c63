"""Reading HDF5 that somebody else wrote: nothing outside the file is touched, and no size is believed unchecked.

An HDF5 file can name other files (external and soft links, external storage, virtual datasets) and can declare arrays
far larger than itself. So links are walked one component at a time, and a declared size is held against the stored one.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets.episodes.missing import check_file

MAX_RATIO = 1100
"""Declared over stored bytes beyond which an array is a bomb: deflate reaches 1032, LZF 88."""
MAX_CHUNK_BYTES = 1 << 28
MAX_TEXT_BYTES = 1 << 22
LOCK_PATIENCE = 3.0
"""How long a file that another process writes is waited for [s]."""
_SLACK_BYTES = 1 << 16


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open for reading. Whatever h5py raises meanwhile leaves as a DatasetError naming the file."""
    _check_signature(path)
    with hdf5_errors(str(path)), _patiently(path) as file:
        yield file


@contextmanager
def hdf5_errors(where: str) -> Iterator[None]:
    """Turn h5py's errors into a DatasetError that starts with `where`."""
    try:
        yield
    except QTransformerError:
        raise
    except BlockingIOError as error:
        raise DatasetError(
            f"{where}: expected a file at rest, found one locked by a process that writes it ({error}), also after "
            f"{LOCK_PATIENCE:g} s; let that process finish (where locks are known to be stale: HDF5_USE_FILE_LOCKING=FALSE)"
        ) from error
    except PermissionError as error:
        raise DatasetError(f"{where}: cannot be opened ({error}); fix its permissions") from error
    except Exception as error:  # damaged metadata surfaces as nearly any type: OSError, RuntimeError, KeyError, ValueError, ...
        if "truncated file" in str(error):
            raise DatasetError(f"{where}: the file is truncated ({error}); copy or download it again") from error
        raise DatasetError(f"{where}: damaged HDF5 ({error}); restore it from its source, or collect it again") from error


def child_names(group: h5py.Group) -> list[str]:
    return [str(name) for name in group]


def has_child(group: h5py.Group, name: str) -> bool:
    """Whether a link of this name exists; unlike `name in group` it does not follow the link."""
    return "/" not in name and bool(group.id.links.exists(name.encode()))


def child(parent: h5py.Group, name: str, where: str) -> Any:
    """The group or dataset behind one link, followed only if it is a plain one; `name` is a single component, never a path."""
    if not has_child(parent, name):
        raise DatasetError(
            f"{where}: expected '{name}' in {parent.name}, found {child_names(parent)[:20]}; this is not the format's layout"
        )
    link = parent.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise DatasetError(f"{where}: '{name}' in {parent.name} is a {type(link).__name__}; replace links by the data itself")
    return parent[name]


def child_group(parent: h5py.Group, name: str, where: str) -> h5py.Group:
    node = child(parent, name, where)
    if not isinstance(node, h5py.Group):
        raise DatasetError(f"{where}: '{name}' expected a group, found {type(node).__name__}; this is not the format's layout")
    return node


def child_dataset(parent: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """A dataset whose bytes lie in this file and whose declared size is believable."""
    node = child(parent, name, where)
    if not isinstance(node, h5py.Dataset):
        raise DatasetError(f"{where}: '{name}' expected a dataset, found {type(node).__name__}; this is not the format's layout")
    _check_local(node, name, where)
    if node.dtype.kind not in "biuf":
        raise DatasetError(f"{where}: '{name}' expected numbers, found {node.dtype}; this is not the format's layout")
    _check_size(node, name, where)
    return node


def json_attribute(group: h5py.Group, name: str, where: str) -> Any:
    """Decode an attribute that holds JSON."""
    text = text_attribute(group, name, where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: attribute '{name}' expected JSON ({error}); restore the file from its source") from error


def number_attribute(group: h5py.Group, name: str, where: str) -> int:
    value = group.attrs[name]
    if not isinstance(value, int | np.integer):
        raise DatasetError(f"{where}: attribute '{name}' expected an integer, found {value!r}; remove the episode")
    return int(value)


def text_attribute(group: h5py.Group, name: str, where: str) -> str:
    if group.attrs.get_id(name).get_storage_size() > MAX_TEXT_BYTES:
        raise DatasetError(f"{where}: attribute '{name}' expected at most {MAX_TEXT_BYTES} bytes; restore the file from its source")
    value = group.attrs[name]
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > MAX_TEXT_BYTES:
        raise DatasetError(
            f"{where}: attribute '{name}' expected text of at most {MAX_TEXT_BYTES} bytes, found "
            f"{type(value).__name__}; "
            "restore the file from its source"
        )
    return text


def text_rows(parent: h5py.Group, name: str, where: str) -> list[str]:
    """A dataset of strings, (n,)."""
    node = child(parent, name, where)
    if not isinstance(node, h5py.Dataset) or not is_text(node) or node.ndim != 1:
        raise DatasetError(f"{where}: '{name}' expected a row of strings, found {node}; this is not the format's layout")
    _check_local(node, name, where)
    _check_size(node, name, where)
    if node.nbytes > MAX_TEXT_BYTES:
        raise DatasetError(f"{where}: '{name}' expected at most {MAX_TEXT_BYTES} bytes of text, found {node.nbytes}; do not use it")
    return [item.decode() if isinstance(item, bytes) else str(item) for item in node[()]]


def is_text(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype) is not None


def _patiently(path: Path) -> h5py.File:
    """Open a file; wait a little for one that is being closed."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            return h5py.File(path, "r")
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _check_signature(path: Path) -> None:
    head = check_file(path, "an HDF5 file")
    if not h5py.is_hdf5(path):
        raise DatasetError(f"{path}: expected an HDF5 file, found something else (starts with {head[:8]!r}); check the path")


def _check_local(dataset: h5py.Dataset, name: str, where: str) -> None:
    if dataset.external or dataset.is_virtual:
        raise DatasetError(f"{where}: '{name}' keeps its data in another file; copy the data into this one (h5repack)")


def _check_size(dataset: h5py.Dataset, name: str, where: str) -> None:
    declared, stored = dataset.nbytes, dataset.id.get_storage_size()
    chunk = int(np.prod(dataset.chunks, dtype=np.float64)) * dataset.dtype.itemsize if dataset.chunks else 0
    file_size = Path(dataset.file.filename).stat().st_size
    if stored > file_size or declared > MAX_RATIO * stored + _SLACK_BYTES or chunk > MAX_CHUNK_BYTES:
        raise DatasetError(
            f"{where}: '{name}' declares {dataset.shape} = {declared} bytes in chunks of {chunk} but stores {stored} "
            f"in a file of {file_size}; the file is damaged or hostile: do not use it"
        )

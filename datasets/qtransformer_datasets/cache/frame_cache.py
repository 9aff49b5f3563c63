"""The cache of a source: its frames, decoded once and kept on disk as flat arrays that are memory-mapped ever after.

    low.hdf5.cache/<key>/           one folder per way of reading low.hdf5 (format, options, cameras kept, image size)
        image_0.npy ...             uint8 (N, h, w, 3), cameras in the order of their names
        proprio.npy ...             the arrays of `frames.row_layout`, (N, ...)
        episodes.jsonl              a line per episode: length, success, has_final_observation, info
        manifest.json               written last: what was cached and how, instructions, CRC-32 of every array, its own SHA-256
    low.hdf5.cache/<key>.part/      the same while it is being built, and progress.json, from which a killed build goes on
    low.hdf5.cache/<key>.lock       held by whoever builds

The folder lies beside the data where that can be written, else in the user's own cache; QTRANSFORMER_CACHE names another place
(a fast local disk, say). Opening looks at sizes, reads the small arrays and checks their sums, and leaves the images alone.
A cache that belongs to another state of its source, or is damaged, counts as none.
"""

import fcntl
import json
import os
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.files import is_disk_full, sync_entry
from qtransformer_datasets.cache.builder import CacheBuilder
from qtransformer_datasets.cache.layout import (
    EPISODES,
    MANIFEST,
    image_names,
    npy_header,
    open_own,
    sha256,
    source_stamps,
    stored_arrays,
)
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.stream.frames import EpisodeRecord, SourceFrames, image_bytes
from qtransformer_datasets.stream.image_rows import ImageRows

VERSION = 1
ROOT_VARIABLE = "QTRANSFORMER_CACHE"


def open_cache(source: LoggedEpisodes) -> SourceFrames | None:
    """The frames of a source from its cache; None where there is none that fits the source as it is now.

    Warns where there is one that is damaged.
    """
    identity = _identity(source)
    for folder in _folders(source):
        found = _open(folder, identity, source)
        if found is not None:
            return found
    return None


def build_cache(source: LoggedEpisodes) -> SourceFrames:
    """The same, built first if need be. Two processes that ask at once build one; a killed build is resumed.

    Raises:
        DatasetError: there is no room for it or no place that can be written, or the source cannot be read. Nothing is left.
    """
    with _locked_folder(source) as folder:
        found = open_cache(source)  # another process may have built it while this one waited
        if found is None:
            _build(source, folder)
            found = open_cache(source)
    if found is None:
        raise DatasetError(f"{folder}: the cache just built cannot be read back; check that disk, or use cache='never'")
    return found


def _open(folder: Path, identity: Mapping[str, Any], source: LoggedEpisodes) -> SourceFrames | None:
    try:
        manifest = _read_manifest(folder)
        if manifest is None or manifest["identity"] != identity:
            return None
        return _open_arrays(folder, manifest, source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(f"{folder}: a damaged cache is not used ({error})", stacklevel=2)
        return None


def _open_arrays(folder: Path, manifest: Mapping[str, Any], source: LoggedEpisodes) -> SourceFrames:
    count, sums = int(manifest["frames"]), {str(name): int(crc) for name, crc in manifest["crc32"].items()}
    cameras, images, arrays = {name: camera for camera, name in image_names(source).items()}, {}, {}
    for name, (shape, kind) in stored_arrays(source).items():
        path = folder / f"{name}.npy"
        header = _check_file(path, shape, kind, count)
        if name in cameras:
            rows = np.memmap(path, kind, "r", len(header), (count, *shape))
            images[cameras[name]] = ImageRows([rows], [sums[name]])
        else:
            data = bytearray(_read_checked(path, sums[name], len(header)))  # arrays that are writable, as those from memory
            arrays[name] = np.frombuffer(data, kind).reshape(count, *shape)
    records = _records(_read_checked(folder / EPISODES, sums[EPISODES]))
    if sum(record.length + 1 for record in records) != count:
        raise ValueError(f"{EPISODES} does not describe {count} frames")
    return SourceFrames(images, arrays, tuple(manifest["instructions"]), records)


def _check_file(path: Path, shape: tuple[int, ...], kind: type, count: int) -> bytes:
    """The header of an array's file, once header and size are what they should be: nothing in the file decides what is read."""
    header = npy_header((count, *shape), kind)
    size = len(header) + count * np.dtype(kind).itemsize * int(np.prod(shape))
    with open_own(path, os.O_RDONLY) as file:
        if file.read(len(header)) != header or os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{path.name} is not the array of {size} bytes that the manifest lists")
    return header


def _read_checked(path: Path, crc32: int, offset: int = 0) -> bytes:
    with open_own(path, os.O_RDONLY) as file:
        file.seek(offset)
        data = file.read()
    if zlib.crc32(data) != crc32:
        raise ValueError(f"{path.name} differs from its checksum")
    return data


def _records(lines: bytes) -> list[EpisodeRecord]:
    records, start = [], 0
    for line in lines.splitlines():
        records.append(EpisodeRecord(start=start, **json.loads(line)))
        start += records[-1].length + 1
    return records


def _build(source: LoggedEpisodes, folder: Path) -> None:
    identity, part = _identity(source), folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # out of date or damaged: its room may be needed
        with CacheBuilder(source, part, identity) as builder:
            builder.fill()
            if _identity(source) != identity:
                raise DatasetError(f"{source.path}: changed while its cache was built; let the writer finish first")
            builder.finish()
        os.replace(part, folder)
        sync_entry(folder.parent)
    except OSError as error:
        written = sum(f.stat().st_size for f in part.glob("*")) if part.exists() else 0
        shutil.rmtree(part, ignore_errors=True)
        reason = "the disk is full or a file-size limit was reached" if is_disk_full(error) else "it cannot be written"
        raise DatasetError(
            f"{folder}: the cache of {source.path} needs {image_bytes(source) / 1e6:.1f} MB; {reason} after {written / 1e6:.1f} MB "
            f"({error}); free some space, name another place in {ROOT_VARIABLE}, or use cache='never'"
        ) from error
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _identity(source: LoggedEpisodes) -> dict[str, Any]:
    """All that a cache depends on, as JSON gives it back: files (by size and time of change), format, options, specs."""
    opening = source.opening
    assert opening is not None, "only what open_episodes opened can be cached"
    identity = {
        "version": VERSION,
        "format": opening.format,
        "options": dict(opening.options),
        "files": source_stamps(Path(source.path), opening.options),
        "action_spec": source.action_spec.to_dict(),
        "observation_spec": source.observation_spec.to_dict(),
    }
    return json.loads(json.dumps(identity, sort_keys=True, default=str))


def _folders(source: LoggedEpisodes) -> list[Path]:
    """Where a source's cache may lie, best place first."""
    opening, path = source.opening, Path(source.path).absolute()
    assert opening is not None
    key = sha256(json.loads(json.dumps([opening.format, dict(opening.options)], sort_keys=True, default=str)))[:12]
    own = f"{path.name}-{sha256(str(path))[:12]}.cache"
    root = os.environ.get(ROOT_VARIABLE)
    if root:
        return [Path(root) / own / key]
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtransformer"
    return [path.with_name(f"{path.name}.cache") / key, users / own / key]


@contextmanager
def _locked_folder(source: LoggedEpisodes) -> Iterator[Path]:
    """The first folder that can be written, while no other process builds there. The kernel lets go when a process is killed."""
    folders, problems = _folders(source), list[str]()
    for folder in folders:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(folder.parent, os.W_OK):
                raise PermissionError(f"{folder.parent} cannot be written")
            lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
            break
        except OSError as error:
            problems.append(str(error))
    else:
        raise DatasetError(
            f"{source.path}: no place for its cache ({'; '.join(problems)}); name one in {ROOT_VARIABLE}, or use cache='never'"
        )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process builds this cache; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        with open_own(folder / MANIFEST, os.O_RDONLY) as file:
            manifest = json.loads(file.read())
    except FileNotFoundError:
        return None
    if manifest["sha256"] != sha256(manifest["content"]):
        raise ValueError(f"{MANIFEST} differs from its checksum")
    return manifest["content"]

"""The cache of a source: its frames, decoded once and kept on disk as flat arrays that are memory-mapped ever after.

    low.hdf5.cache/<key>/           one folder per way of reading low.hdf5 (format and options)
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
import hashlib
import io
import json
import os
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from qtransformer.errors import DatasetError
from qtransformer_datasets.formats import LoggedEpisodes, opening_of
from qtransformer_datasets.frames import (
    EpisodeRecord,
    Layout,
    SourceFrames,
    checked_episodes,
    episode_rows,
    image_bytes,
    row_layout,
)
from qtransformer_datasets.image_rows import ImageRows

VERSION = 1
ROOT_VARIABLE = "QTRANSFORMER_CACHE"
SYNC_BYTES = 256 << 20
"""Bytes after which a build puts everything on disk for good: the most that a killed build does twice."""
_MANIFEST, _EPISODES, _PROGRESS = "manifest.json", "episodes.jsonl", "progress.json"


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
    """The same, built first if need be. Two processes that ask at once build one; a killed build is gone on with.

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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{folder}: a damaged cache is not used ({error})", stacklevel=2)
        return None


def _open_arrays(folder: Path, manifest: Mapping[str, Any], source: LoggedEpisodes) -> SourceFrames:
    count, sums = int(manifest["frames"]), {str(name): int(crc) for name, crc in manifest["crc32"].items()}
    images, arrays = {}, {}
    for camera, (name, shape) in _image_files(source).items():
        header = _check_file(folder / f"{name}.npy", shape, np.uint8, count)
        rows = np.memmap(folder / f"{name}.npy", np.uint8, "r", len(header), (count, *shape))
        images[camera] = ImageRows([rows], [sums[name]])
    for name, (shape, kind) in row_layout(source.action_spec, source.observation_spec).items():
        header = _check_file(folder / f"{name}.npy", shape, kind, count)
        data = _read_checked(folder / f"{name}.npy", sums[name], len(header))
        arrays[name] = np.frombuffer(data, kind).reshape(count, *shape)
    lines = _read_checked(folder / _EPISODES, sums[_EPISODES]).decode().splitlines()
    return SourceFrames(images, arrays, tuple(manifest["instructions"]), _records(lines))


def _check_file(path: Path, shape: tuple[int, ...], kind: type, count: int) -> bytes:
    """The header of an array's file, once header and size are what they should be: nothing in the file decides what is read."""
    header = _header((count, *shape), kind)
    size = len(header) + count * np.dtype(kind).itemsize * int(np.prod(shape))
    with _opened(path, os.O_RDONLY) as file:
        if file.read(len(header)) != header or os.fstat(file.fileno()).st_size != size:
            raise ValueError(f"{path.name} is not the array of {size} bytes that the manifest speaks of")
    return header


def _read_checked(path: Path, crc32: int, offset: int = 0) -> bytes:
    with _opened(path, os.O_RDONLY) as file:
        file.seek(offset)
        data = file.read()
    if zlib.crc32(data) != crc32:
        raise ValueError(f"{path.name} differs from its checksum")
    return data


def _records(lines: list[str]) -> list[EpisodeRecord]:
    records, start = [], 0
    for line in lines:
        fields = json.loads(line)
        records.append(EpisodeRecord(start=start, **fields))
        start += records[-1].length + 1
    return records


def _build(source: LoggedEpisodes, folder: Path) -> None:
    identity, part = _identity(source), folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # out of date or damaged: its room may be needed
        with _Builder(source, part, identity) as builder:
            builder.fill()
            if _identity(source) != identity:
                raise DatasetError(f"{source.path}: changed while its cache was built; let the writer finish first")
            builder.finish()
        os.replace(part, folder)
        _sync_folder(folder.parent)
    except OSError as error:
        written = sum(f.stat().st_size for f in part.glob("*")) if part.exists() else 0
        shutil.rmtree(part, ignore_errors=True)
        raise DatasetError(
            f"{folder}: the cache of {source.path} needs {image_bytes(source) / 1e6:.1f} MB and cannot be written after "
            f"{written / 1e6:.1f} MB ({error}); free some room, name another place in {ROOT_VARIABLE}, or use cache='never'"
        ) from error
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise


class _Builder:
    """Writes the arrays of a cache, episode by episode, so that a kill costs no more than the last `SYNC_BYTES`."""

    def __init__(self, source: LoggedEpisodes, part: Path, identity: Mapping[str, Any]) -> None:
        self._source, self._part, self._identity = source, part, identity
        self._lengths, self._cameras = source.lengths, _image_files(source)
        self._layout: Layout = row_layout(source.action_spec, source.observation_spec)
        layout = {name: (shape, np.uint8) for name, shape in self._cameras.values()} | dict(self._layout)
        count = sum(self._lengths) + len(self._lengths)
        headers = {f"{name}.npy": _header((count, *shape), kind) for name, (shape, kind) in layout.items()}
        progress = _read_progress(part, identity)
        if progress is None:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            progress = {"episodes": 0, "frames": 0, "instructions": [], "files": {}}
        self._episodes, self._frames = int(progress["episodes"]), int(progress["frames"])
        self._instructions = {text: i for i, text in enumerate(progress["instructions"])}
        self._files = {
            name: _AppendedFile(part / name, headers.get(name, b""), progress["files"].get(name)) for name in [*headers, _EPISODES]
        }
        self._unsynced = 0

    def __enter__(self) -> "_Builder":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def fill(self) -> None:
        """Append all episodes that are not there yet."""
        source, first = self._source, self._episodes
        missing = sum(self._lengths[first:]) * image_bytes(source) // max(1, sum(self._lengths))
        free = shutil.disk_usage(self._part).free
        if missing > free:
            raise OSError(f"{free / 1e6:.1f} MB are free on that disk")
        rest = iter(source) if first == 0 else map(source.read, range(first, len(source)))
        bar = tqdm(
            checked_episodes(source, rest, self._lengths, first),
            desc=f"cache {source.path.name}",
            unit="episode",
            total=len(self._lengths),
            initial=first,
            disable=not sys.stderr.isatty(),
        )
        for episode in bar:
            instruction = self._instructions.setdefault(episode.instruction, len(self._instructions))
            for name, rows in episode_rows(episode, self._layout, self._frames, instruction).items():
                self._append(f"{name}.npy", rows)
            for camera, (name, _) in self._cameras.items():
                self._append(f"{name}.npy", episode.images[camera])
            record = {"length": len(episode), "success": bool(episode.success)}
            record |= {"has_final_observation": bool(episode.has_final_observation), "info": episode.info}
            self._append(_EPISODES, np.frombuffer(json.dumps(record, default=_plain).encode() + b"\n", np.uint8))
            self._episodes += 1
            self._frames += len(episode) + 1
            if self._unsynced >= SYNC_BYTES:
                self._sync()

    def finish(self) -> None:
        """Everything on disk, and the manifest that says so."""
        self._sync()
        content = {
            "identity": self._identity,
            "frames": self._frames,
            "instructions": list(self._instructions),
            "crc32": {name.removesuffix(".npy"): file.crc32 for name, file in self._files.items()},
        }
        text = json.dumps({"sha256": _sha256(content), "content": content}, indent=1)
        _write_synced(self._part / _MANIFEST, text)
        (self._part / _PROGRESS).unlink()
        _sync_folder(self._part)

    def _append(self, name: str, rows: np.ndarray) -> None:
        self._unsynced += self._files[name].append(rows)

    def _sync(self) -> None:
        for file in self._files.values():
            file.sync()
        progress = {
            "identity": self._identity,
            "episodes": self._episodes,
            "frames": self._frames,
            "instructions": list(self._instructions),
            "files": {name: file.position for name, file in self._files.items()},
        }
        _write_synced(self._part / _PROGRESS, json.dumps(progress))
        self._unsynced = 0


class _AppendedFile:
    """A header, then rows that are only ever appended, with the running CRC-32 of the rows."""

    def __init__(self, path: Path, header: bytes, position: Mapping[str, int] | None) -> None:
        self._file = _opened(path, os.O_RDWR | os.O_CREAT)
        if position is None:
            self._file.write(header)
            self._size, self.crc32 = len(header), 0
        else:  # whatever a killed build wrote after its last sync is written again
            self._size, self.crc32 = int(position["size"]), int(position["crc32"])
            self._file.truncate(self._size)
            self._file.seek(self._size)

    @property
    def position(self) -> dict[str, int]:
        return {"size": self._size, "crc32": self.crc32}

    def append(self, rows: np.ndarray) -> int:
        """Bytes written."""
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        self._file.write(data.data)
        self._size, self.crc32 = self._size + len(data), zlib.crc32(data.data, self.crc32)
        return len(data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # a full disk was reported where it was met
            self._file.close()


def _identity(source: LoggedEpisodes) -> dict[str, Any]:
    """All that a cache depends on, as JSON gives it back: files (by size and time of change), format, options, specs."""
    opening = opening_of(source)
    assert opening is not None, "only what open_episodes opened can be cached"
    named = [Path(x) for x in opening.options.values() if isinstance(x, str | os.PathLike) and Path(x).is_file()]
    identity = {
        "version": VERSION,
        "format": opening.format.name,
        "options": dict(opening.options),
        "files": [_stamp(Path(source.path)), *map(_stamp, named)],
        "action_spec": source.action_spec.to_dict(),
        "observation_spec": source.observation_spec.to_dict(),
    }
    return json.loads(json.dumps(identity, sort_keys=True, default=str))


def _stamp(path: Path) -> str:
    """Changes when a file, or any file of a folder, is replaced or written to."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    stats = [(str(f.relative_to(path)), f.stat()) for f in files]
    return _sha256([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _folders(source: LoggedEpisodes) -> list[Path]:
    """Where a source's cache may lie, best place first."""
    opening, path = opening_of(source), Path(source.path).absolute()
    assert opening is not None
    key = _sha256(json.loads(json.dumps([opening.format.name, dict(opening.options)], sort_keys=True, default=str)))[:12]
    own = f"{path.name}-{_sha256(str(path))[:12]}.cache"
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


def _image_files(source: LoggedEpisodes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Camera to the name of its array and the shape of its images. No name from a file becomes a path."""
    cameras = source.observation_spec.cameras
    return {camera: (f"image_{i}", cameras[camera]) for i, camera in enumerate(sorted(cameras))}


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        with _opened(folder / _MANIFEST, os.O_RDONLY) as file:
            manifest = json.loads(file.read())
    except FileNotFoundError:
        return None
    if manifest["sha256"] != _sha256(manifest["content"]):
        raise ValueError(f"{_MANIFEST} differs from its checksum")
    return manifest["content"]


def _read_progress(part: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far a killed build of the same source came; None where there was none."""
    try:
        progress = json.loads((part / _PROGRESS).read_text())
        whole = all((part / name).stat().st_size >= file["size"] for name, file in progress["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return progress if whole and progress["identity"] == identity else None


def _header(shape: tuple[int, ...], kind: type) -> bytes:
    """What an .npy file of this array begins with."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(kind))
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _opened(path: Path, flags: int) -> BinaryIO:
    """A file of the cache itself: a link to elsewhere is not followed."""
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW, 0o666), "rb" if flags == os.O_RDONLY else "r+b")


def _write_synced(path: Path, text: str) -> None:
    fresh = path.with_suffix(".tmp")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays within `info`, as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")

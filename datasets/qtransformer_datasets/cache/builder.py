"""Building a cache, episode by episode, so that a kill costs no more than the last `SYNC_BYTES`. See `frame_cache`."""

import errno
import json
import os
import shutil
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from qtransformer.errors import DatasetError
from qtransformer.files import replaced_file, sync_entry
from qtransformer.types import Episode
from qtransformer_datasets.cache.layout import (
    EPISODES,
    MANIFEST,
    PROGRESS,
    image_names,
    npy_header,
    open_own,
    sha256,
    stored_arrays,
)
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.stream.frames import checked_episodes, episode_rows, frame_bytes, row_layout

SYNC_BYTES = 256 << 20
"""Bytes after which everything is put on disk for good."""


class CacheBuilder:
    """Writes the arrays of a source into a folder of its own; goes on where a killed one was safe. A context: closes its files."""

    def __init__(self, source: LoggedEpisodes, folder: Path, identity: Mapping[str, Any]) -> None:
        self._source, self._folder, self._identity = source, folder, identity
        self._lengths, self._layout = source.lengths, row_layout(source.action_spec, source.observation_spec)
        if not self._lengths:
            raise DatasetError(f"{source.path}: expected at least one episode, found none; check that the source is not empty")
        progress = _read_progress(folder, identity)
        if progress is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            progress = {"episodes": 0, "frames": 0, "instructions": [], "files": {}}
        self._episodes, self._frames = int(progress["episodes"]), int(progress["frames"])
        self._instructions = {text: i for i, text in enumerate(progress["instructions"])}
        count = sum(self._lengths) + len(self._lengths)
        headers = {f"{name}.npy": npy_header((count, *shape), kind) for name, (shape, kind) in stored_arrays(source).items()}
        headers[EPISODES] = b""
        self._files = {name: _AppendedFile(folder / name, header, progress["files"].get(name)) for name, header in headers.items()}
        self._unsynced = 0

    def __enter__(self) -> "CacheBuilder":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def fill(self) -> None:
        """Append all episodes that are not there yet."""
        source, first = self._source, self._episodes
        missing = (sum(self._lengths[first:]) + len(self._lengths[first:])) * frame_bytes(source.observation_spec)
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            raise OSError(errno.ENOSPC, f"{free / 1e6:.1f} MB are free on that disk")
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
            self._append(episode)
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
        _write_synced(self._folder / MANIFEST, json.dumps({"sha256": sha256(content), "content": content}, indent=1))
        (self._folder / PROGRESS).unlink()
        sync_entry(self._folder)

    def _append(self, episode: Episode) -> None:
        instruction = self._instructions.setdefault(episode.instruction, len(self._instructions))
        rows = episode_rows(episode, self._layout, self._frames, instruction)
        rows |= {name: episode.images[camera] for camera, name in image_names(self._source).items()}
        for name, array in rows.items():
            self._unsynced += self._files[f"{name}.npy"].append(array)
        record = {"length": len(episode), "success": bool(episode.success)}
        record |= {"has_final_observation": bool(episode.has_final_observation), "info": episode.info}
        self._files[EPISODES].append(np.frombuffer(json.dumps(record, default=_plain).encode() + b"\n", np.uint8))
        self._episodes += 1
        self._frames += len(episode) + 1

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
        _write_synced(self._folder / PROGRESS, json.dumps(progress))
        self._unsynced = 0


class _AppendedFile:
    """A header, then rows that are only ever appended, with the running CRC-32 of the rows."""

    def __init__(self, path: Path, header: bytes, position: Mapping[str, int] | None) -> None:
        self._file = open_own(path, os.O_RDWR | os.O_CREAT)
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


def _read_progress(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far a killed build of the same source came; None where there was none."""
    try:
        progress = json.loads((folder / PROGRESS).read_text())
        whole = all((folder / name).stat().st_size >= file["size"] for name, file in progress["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return progress if whole and progress["identity"] == identity else None


def _write_synced(path: Path, text: str) -> None:
    with replaced_file(path) as fresh:
        fresh.write_text(text)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays within `info`, as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

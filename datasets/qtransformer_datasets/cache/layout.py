"""The files of a cache: which there are, how they begin, and how they are opened. See `frame_cache`."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.formats import FILE_OPTIONS
from qtransformer_datasets.stream.frames import ArrayLayout, row_layout

MANIFEST, EPISODES, PROGRESS = "manifest.json", "episodes.jsonl", "progress.json"


def image_names(source: LoggedEpisodes) -> dict[str, str]:
    """Camera to the name of its array. No name from a file becomes a path."""
    return {camera: f"image_{i}" for i, camera in enumerate(sorted(source.observation_spec.cameras))}


def stored_arrays(source: LoggedEpisodes) -> ArrayLayout:
    """All arrays of a source's cache."""
    cameras = source.observation_spec.cameras
    images = {name: (cameras[camera], np.uint8) for camera, name in image_names(source).items()}
    return images | dict(row_layout(source.action_spec, source.observation_spec))


def npy_header(shape: tuple[int, ...], kind: type) -> bytes:
    """What an .npy file of this array begins with."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(kind))
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def open_own(path: Path, flags: int) -> BinaryIO:
    """A file of the cache itself: a link to elsewhere is not followed."""
    return os.fdopen(os.open(path, flags | os.O_NOFOLLOW, 0o666), "rb" if flags == os.O_RDONLY else "r+b")


def source_stamps(path: Path, options: Mapping[str, Any]) -> list[str]:
    """Of a dataset, and of each file that an option names (a topic contract): see `stamp`."""
    said = [options[name] for name in FILE_OPTIONS if name in options]
    named = [Path(value) for value in said if isinstance(value, str | os.PathLike) and Path(value).is_file()]
    return [stamp(path), *map(stamp, named)]


def stamp(path: Path) -> str:
    """Changes when a file, or any file of a folder, is replaced or written to."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    stats = [(str(f.relative_to(path)), f.stat()) for f in files]
    return sha256([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def sha256(data: Any) -> str:
    """Of anything that JSON can say."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

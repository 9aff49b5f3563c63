"""Where things lie in a LeRobotDataset (v2.0, v2.1, v3.0), as its `meta/info.json` says, and never outside its folder.

    meta/info.json                         version, fps, features, templates of the paths below
    data/.../*.parquet                     one row per frame; v2: one file per episode, v3: many
    videos/.../<camera>/....mp4            v2: one file per episode, v3: many
    meta/tasks.{jsonl,parquet}             task_index -> what the robot was asked to do
    meta/episodes/.../*.parquet            v3: which part of which video is which episode

Counts in `info.json` are not read: trimmed, merged and aborted datasets carry wrong ones.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtransformer.errors import DatasetError
from qtransformer_datasets.episodes.missing import check_file

CAMERA_PREFIX = "observation.images."
ACTION, STATE = "action", "observation.state"
MAX_JSON_BYTES = 1 << 28
_FIELDS = ("chunk_index", "file_index", "episode_chunk", "episode_index", "video_key")
_TEMPLATE = re.compile(r"[A-Za-z0-9_./ -]*(?:\{(?:" + "|".join(_FIELDS) + r")(?::0[1-9]d)?\}[A-Za-z0-9_./ -]*)*")
_FIELD = re.compile(r"\{(\w+)(?::0([1-9])d)?\}")


@dataclass(frozen=True, slots=True)
class Feature:
    """One column or video."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    """One name per value (of an image: per axis); None where the file gives none."""
    is_depth: bool

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def camera(self) -> str:
        """The camera's name: what follows `observation.images.`, or `observation.`."""
        return self.key.removeprefix(CAMERA_PREFIX).removeprefix("observation.")

    @property
    def width(self) -> int:
        """Numbers per row."""
        width = 1
        for size in self.shape:
            width *= size
        return width


class PathTemplate:
    """A path with placeholders, as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`; `str.format` is not involved."""

    def __init__(self, text: Any, where: str) -> None:
        plain = isinstance(text, str) and _TEMPLATE.fullmatch(text) is not None
        if not plain or not text or text.startswith("/") or ".." in text.split("/"):
            raise DatasetError(
                f"{where} expected a relative path with only {', '.join(_FIELDS)} as placeholders, found {text!r}; "
                "correct it, or do not use this dataset"
            )
        self.text = text

    def fill(self, **fields: int | str) -> str:
        def value(match: re.Match[str]) -> str:
            name, digits = match.groups()
            return f"{fields[name]:0{digits}d}" if digits else str(fields[name])

        return _FIELD.sub(value, self.text)

    def find(self, root: Path) -> list[tuple[Path, dict[str, int]]]:
        """Files that exist below `root`, in the order of the numbers in their names, with these numbers."""
        seen, pattern = set[str](), ""
        for piece in re.split(r"(\{.*?\})", self.text):
            field = _FIELD.fullmatch(piece)
            name = field[1] if field else ""
            pattern += re.escape(piece) if not field else f"(?P={name})" if name in seen else f"(?P<{name}>[0-9]{{1,9}})"
            seen.add(name)
        found = []
        for path in root.glob(_FIELD.sub("*", self.text)):
            match = re.fullmatch(pattern, path.relative_to(root).as_posix())
            if match:
                found.append((path, {name: int(number) for name, number in match.groupdict().items()}))
        return sorted(found, key=lambda item: list(item[1].values()))


class Layout:
    """What `meta/info.json` says, checked."""

    def __init__(self, root: Path) -> None:
        self.root, where = root, f"{root}, meta/info.json"
        info = read_json(self.inside("meta/info.json"))
        if not isinstance(info, Mapping) or not isinstance(info.get("features"), Mapping):
            raise DatasetError(f"{where}: expected an object with 'features'; this is not a LeRobotDataset")
        self.version, self.major = _version(info.get("codebase_version"), where)
        self.fps = _rate(info.get("fps"), where)
        self.robot_type = str(info.get("robot_type") or "")
        self.data_path = PathTemplate(info.get("data_path"), f"{where}: data_path")
        self._video_path = info.get("video_path")
        self.features = {str(key): _feature(str(key), value, where) for key, value in info["features"].items()}

    @property
    def video_path(self) -> PathTemplate:
        return PathTemplate(self._video_path, f"{self.root}, meta/info.json: video_path")

    def inside(self, relative: str, where: str = "") -> Path:
        """A path below the root, also after all links are followed. The hub's cache, which links to its own blobs, is welcome."""
        path, root = self.root / relative, os.path.realpath(self.root)
        homes = [root]
        if self.root.absolute().parent.name == "snapshots":
            homes.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(self.root))), "blobs"))
        real = os.path.realpath(path)
        if not any(os.path.commonpath([home, real]) == home for home in homes):
            raise DatasetError(
                f"{where or self.root}: '{relative}' leads out of the dataset, to {real}; replace links by the files (cp -rL), "
                "or do not use this dataset"
            )
        return path


def read_json(path: Path) -> Any:
    text = _text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected JSON ({error}); restore it from its source") from error


def read_json_lines(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(_text(path).splitlines()):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number + 1}: expected JSON ({error}); restore it from its source") from error
    return rows


def _text(path: Path) -> str:
    check_file(path, "a JSON file")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"{path}: expected at most {MAX_JSON_BYTES} bytes; the file is damaged or hostile: do not use it")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected text ({error}); restore it from its source") from error


def is_plain_key(key: str) -> bool:
    """Whether a name may be part of a path."""
    return re.fullmatch(r"[^/\\{}\0]+", key) is not None and key.strip(".") != ""


def _version(found: Any, where: str) -> tuple[str, int]:
    match = re.fullmatch(r"v?([0-9]+)\.([0-9]+)(?:\.[0-9]+)?", str(found))
    if not match or int(match[1]) not in (2, 3):
        raise DatasetError(
            f"{where}: codebase_version expected v2.0, v2.1 or v3.0, found {found!r}; convert the dataset with LeRobot's own script"
        )
    return f"v{match[1]}.{match[2]}", int(match[1])


def _rate(fps: Any, where: str) -> float:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6:
        raise DatasetError(f"{where}: fps expected a rate above 0 [Hz], found {fps!r}; correct it")
    return float(fps)


def _feature(key: str, value: Any, where: str) -> Feature:
    shape = value.get("shape") if isinstance(value, Mapping) else None
    sound = isinstance(shape, list) and len(shape) <= 8 and all(isinstance(n, int) and 0 <= n < 1 << 24 for n in shape)
    if not sound or not isinstance(value.get("dtype"), str):
        raise DatasetError(f"{where}: feature '{key}' expected a dtype and a shape, found {value!r:.200}; correct it")
    if value["dtype"] in ("image", "video") and not is_plain_key(key):
        raise DatasetError(f"{where}: camera '{key}' expected a plain name, found path characters; do not use this dataset")
    details = {**_mapping(value.get("video_info")), **_mapping(value.get("info"))}
    is_depth = bool(details.get("video.is_depth_map") or details.get("is_depth_map"))
    return Feature(key, value["dtype"], tuple(shape or ()), _names(value.get("names")), is_depth)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(names: Any) -> tuple[str, ...] | None:
    """A list, a list of lists, {"motors": [...]}, or {"x": 0, "y": 1}; anything else says nothing."""
    if isinstance(names, Mapping) and names and all(isinstance(place, int) for place in names.values()):
        return tuple(sorted(map(str, names), key=names.__getitem__))
    flat = list(_flat(names, depth=4)) if isinstance(names, list | Mapping) else []
    return tuple(map(str, flat)) if flat and not any(isinstance(name, list | Mapping) for name in flat) else None


def _flat(value: Any, depth: int) -> Iterator[Any]:
    if depth and isinstance(value, list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _flat(part, depth - 1)
    else:
        yield value

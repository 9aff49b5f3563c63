"""Joining the parts of `LeRobotWriter` into one LeRobotDataset v3.0: many episodes per parquet file and per video."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from qtransformer_datasets.lerobot.extras import EPISODES, SPECS
from qtransformer_datasets.lerobot.layout import CAMERA_PREFIX, PathTemplate
from qtransformer_datasets.lerobot.parquet_guard import numbers
from qtransformer_datasets.lerobot.stats import column_stats, image_stats
from qtransformer_datasets.lerobot.video_frames import join_videos, video_details, video_rate
from qtransformer_datasets.lerobot.videos import EPISODES_PATH

ROWS, EXTRAS, PART, HISTOGRAM = "rows.parquet", "extras.parquet", "part.json", ".histogram.npy"
"""Names within `<path>.partial/`."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES, DATA_MEGABYTES, VIDEO_MEGABYTES = 1000, 100, 200
"""LeRobot's own limits: files per chunk, and sizes beyond which the next file begins."""
_EXTRAS_PER_GROUP = 32


def merge(parts: Sequence[Path], folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write the dataset of all `parts` into the new folder `folder`."""
    folder.mkdir()
    cameras = {CAMERA_PREFIX + name: tuple(shape) for name, shape in recipe["observation_spec"]["cameras"].items()}
    facts = [json.loads((part / PART).read_text()) for part in parts]
    tasks = {text: index for index, text in enumerate(dict.fromkeys(fact["instruction"] for fact in facts))}
    episodes = _Episodes([fact["length"] for fact in facts], [fact["instruction"] for fact in facts])
    columns = _merge_rows(parts, folder, episodes, [tasks[fact["instruction"]] for fact in facts])
    _summarise_images(parts, cameras, episodes)
    rate, videos = video_rate(recipe["observation_spec"]["control_hz"]), {}
    if recipe["images"] != "png":
        videos = {key: _merge_videos(parts, folder, episodes, key, number, rate) for number, key in enumerate(cameras)}
    _merge_extras(parts, folder)
    _write_table(folder / PathTemplate(EPISODES_PATH, "").fill(chunk_index=0, file_index=0), episodes.table())
    _write_table(folder / "meta/tasks.parquet", _tasks_table(list(tasks)))
    _write_json(folder / "meta/stats.json", episodes.total_stats)
    _write_json(folder / "meta/info.json", _info(recipe, columns, cameras, videos, episodes, len(tasks)))
    _write_json(folder / SPECS, {k: v for k, v in recipe.items() if k != "images"})


class _Episodes:
    """The table `meta/episodes`, filled column by column, and the statistics of the whole."""

    def __init__(self, lengths: Sequence[int], instructions: Sequence[str]) -> None:
        stops = np.cumsum(lengths)
        self.lengths, self.starts = lengths, stops - lengths
        self.columns: dict[str, Any] = {
            "episode_index": list(range(len(lengths))),
            "tasks": [[text] for text in instructions],
            "length": lengths,
            "dataset_from_index": self.starts,
            "dataset_to_index": stops,
            "meta/episodes/chunk_index": [0] * len(lengths),
            "meta/episodes/file_index": [0] * len(lengths),
        }
        self.total_stats: dict[str, dict[str, Any]] = {}

    def place(self, prefix: str, files: Sequence[int]) -> None:
        """In which file each episode lies."""
        self.columns[f"{prefix}/chunk_index"] = [file // CHUNK_FILES for file in files]
        self.columns[f"{prefix}/file_index"] = [file % CHUNK_FILES for file in files]

    def summarise(self, feature: str, each: Sequence[Mapping[str, Any]], total: dict[str, Any]) -> None:
        for name in total:
            self.columns[f"stats/{feature}/{name}"] = [stats[name] for stats in each]
        self.total_stats[feature] = total

    def table(self) -> pa.Table:
        return pa.table({name: pa.array(column) for name, column in self.columns.items()})


def _merge_rows(parts: Sequence[Path], folder: Path, episodes: _Episodes, tasks: Sequence[int]) -> pa.Schema:
    """One row group per episode. Returns the columns."""
    files = _allot([part / ROWS for part in parts], DATA_MEGABYTES)
    episodes.place("data", files)
    rows: dict[str, list[np.ndarray]] = {}
    writer, current = None, -1
    for part, file, start, length, task in zip(
        _progress(parts, "rows"), files, episodes.starts, episodes.lengths, tasks, strict=True
    ):
        table = pq.read_table(part / ROWS, page_checksum_verification=True)
        table = table.append_column("index", pa.array(np.arange(start, start + length)))
        table = table.append_column("task_index", pa.array(np.full(length, task)))
        if file != current or writer is None:
            _close(writer)
            writer, current = _writer(_numbered(folder, DATA_PATH, file), table.schema), file
        writer.write_table(table, row_group_size=length)
        for field in table.schema:
            if not pa.types.is_struct(field.type):
                rows.setdefault(field.name, []).append(numbers(table, field.name, _width(field.type), str(part)))
    _close(writer)
    for name, arrays in rows.items():
        episodes.summarise(name, [column_stats(array) for array in arrays], column_stats(np.concatenate(arrays)))
    return pq.read_schema(_numbered(folder, DATA_PATH, 0))


def _merge_videos(
    parts: Sequence[Path], folder: Path, episodes: _Episodes, key: str, number: int, rate: Fraction
) -> dict[str, Any]:
    """Returns what info.json says about this camera's videos."""
    videos = [part / f"{number}.mp4" for part in parts]
    files = _allot(videos, VIDEO_MEGABYTES)
    episodes.place(f"videos/{key}", files)
    begin, frames = [0] * len(parts), {}
    for i, (file, length) in enumerate(zip(files, episodes.lengths, strict=True)):
        begin[i] = frames.get(file, 0)
        frames[file] = begin[i] + length
    episodes.columns[f"videos/{key}/from_timestamp"] = [float(first / rate) for first in begin]
    episodes.columns[f"videos/{key}/to_timestamp"] = [
        float((first + length) / rate) for first, length in zip(begin, episodes.lengths, strict=True)
    ]
    for file in _progress(list(frames), f"video of {key}"):
        inside = [(video, length) for video, length, f in zip(videos, episodes.lengths, files, strict=True) if f == file]
        path = _numbered(folder, VIDEO_PATH, file, video_key=key)
        join_videos(path, inside, rate)
    return video_details(_numbered(folder, VIDEO_PATH, 0, video_key=key))


def _summarise_images(parts: Sequence[Path], cameras: Mapping[str, Any], episodes: _Episodes) -> None:
    for number, key in enumerate(cameras):
        counts = [np.load(part / f"{number}{HISTOGRAM}", allow_pickle=False) for part in parts]
        each = [image_stats(count, length) for count, length in zip(counts, episodes.lengths, strict=True)]
        episodes.summarise(key, each, image_stats(np.sum(counts, axis=0), sum(episodes.lengths)))


def _merge_extras(parts: Sequence[Path], folder: Path) -> None:
    writer = None
    for first in range(0, len(parts), _EXTRAS_PER_GROUP):
        table = pa.concat_tables(pq.read_table(part / EXTRAS) for part in parts[first : first + _EXTRAS_PER_GROUP])
        writer = _writer(folder / EPISODES, table.schema) if writer is None else writer
        writer.write_table(table, row_group_size=len(table))
    _close(writer)


def _info(
    recipe: Mapping[str, Any],
    columns: pa.Schema,
    cameras: Mapping[str, Any],
    videos: Mapping[str, Any],
    episodes: _Episodes,
    num_tasks: int,
) -> dict[str, Any]:
    spec, hz = recipe["observation_spec"], recipe["observation_spec"]["control_hz"]
    names = {"observation.state": spec["proprio_names"], "action": recipe["action_spec"]["names"]}
    features: dict[str, Any] = {
        field.name: {"dtype": _dtype(field.type), "shape": [_width(field.type)], "names": names.get(field.name)}
        for field in columns
        if field.name not in cameras
    }
    for key, shape in cameras.items():
        features[key] = {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}
        if key in videos:
            features[key] |= {"dtype": "video", "info": videos[key]}
    return {
        "codebase_version": "v3.0",
        "robot_type": recipe["attributes"].get("robot_type"),
        "total_episodes": len(episodes.lengths),
        "total_frames": sum(episodes.lengths),
        "total_tasks": num_tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_MEGABYTES,
        "video_files_size_in_mb": VIDEO_MEGABYTES,
        "fps": int(hz) if float(hz).is_integer() else hz,
        "splits": {"train": f"0:{len(episodes.lengths)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "features": features,
    }


def _tasks_table(texts: list[str]) -> pa.Table:
    """With the metadata by which pandas makes `task` the index, where LeRobot looks for it."""

    def column(name: str, pandas_type: str, numpy_type: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": pandas_type, "numpy_type": numpy_type, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(texts)), pa.int64()), "task": pa.array(texts, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _allot(files: Sequence[Path], megabytes: int) -> list[int]:
    """Into which joined file each goes: the next begins where one would grow beyond the limit."""
    numbers, number, size = [], 0, 0
    for file in files:
        grown = size + file.stat().st_size
        if size and grown > megabytes << 20:
            number, grown = number + 1, file.stat().st_size
        numbers.append(number)
        size = grown
    return numbers


def _numbered(folder: Path, template: str, file: int, **fields: str) -> Path:
    chunk_index, file_index = divmod(file, CHUNK_FILES)
    path = folder / PathTemplate(template, "").fill(chunk_index=chunk_index, file_index=file_index, **fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _progress(items: Sequence[Any], what: str) -> Any:
    return tqdm(items, desc=f"join {what}", disable=None)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, use_dictionary=False, write_page_checksum=True)


def _close(writer: pq.ParquetWriter | None) -> None:
    if writer is not None:
        writer.close()


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, write_page_checksum=True)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _width(kind: pa.DataType) -> int:
    return kind.list_size if pa.types.is_fixed_size_list(kind) else 1


def _dtype(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))

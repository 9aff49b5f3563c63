"""LeRobotDatasets as LeRobot writes them, made with pyarrow and av alone."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, HEIGHT, WIDTH = 10, 64, 96
CAMERA = "observation.images.wrist"
NAMES = ["shoulder.pos", "gripper.pos"]
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_FILE, EPISODES_FILE = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO_FILE = f"videos/{CAMERA}/chunk-000/file-000.mp4"
"""Where v3.0 keeps a set that fits into one file of each kind."""


class RawEpisode:
    """What a LeRobot log holds. Each frame is of one colour that names episode and step: see `colour`."""

    def __init__(self, index: int, length: int, task: int = 0, **columns: Any) -> None:
        rng = np.random.default_rng(index)
        self.index, self.length, self.task, self.columns = index, length, task, columns
        self.state = rng.normal(size=(length, 2)).astype(np.float32)
        self.action = rng.uniform(-3, 5, size=(length, 2)).astype(np.float32)
        self.frames = np.stack([np.full((HEIGHT, WIDTH, 3), colour(index, step), np.uint8) for step in range(length)])

    def table(self, start: int) -> pa.Table:
        steps = np.arange(self.length)
        columns = {
            "observation.state": _lists(self.state),
            "action": _lists(self.action),
            "timestamp": pa.array((steps / FPS).astype(np.float32)),
            "frame_index": pa.array(steps),
            "episode_index": pa.array(np.full(self.length, self.index)),
            "index": pa.array(start + steps),
            "task_index": pa.array(np.full(self.length, self.task)),
        }
        return pa.table(columns | self.columns)


def colour(episode: int, step: int) -> tuple[int, int, int]:
    return 20 + 25 * episode, 30 + 8 * step, 200 - 8 * step


def _lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _features(dtype: str, extra: dict[str, Any]) -> dict[str, Any]:
    scalar = {"shape": [1], "names": None}
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": NAMES},
        "action": {"dtype": "float32", "shape": [2], "names": NAMES},
        CAMERA: {"dtype": dtype, "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]},
        "timestamp": {"dtype": "float32", **scalar},
        **{name: {"dtype": "int64", **scalar} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    return features | extra


def _info(version: str, data_path: str, video_path: str, features: dict[str, Any]) -> dict[str, Any]:
    return {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": 50,  # as in datasets that were trimmed: never to be believed
        "total_frames": 14983,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": "0:50"},
        "data_path": data_path,
        "video_path": video_path,
        "features": features,
    }


def _write_video(path: Path, frames: np.ndarray, codec: str, gop: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options={"g": str(gop), "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def _png_cells(frames: np.ndarray) -> pa.Array:
    cells = [{"bytes": cv2.imencode(".png", f[..., ::-1])[1].tobytes(), "path": f"frame-{i:06d}.png"} for i, f in enumerate(frames)]
    return pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_v2(
    root: Path,
    episodes: list[RawEpisode],
    *,
    version: str = "v2.1",
    dtype: str = "video",
    codec: str = "libx264",
    gop: int = 2,
    features: dict[str, Any] | None = None,
) -> Path:
    _write_json(root / "meta/info.json", _info(version, V2_DATA, V2_VIDEO, _features(dtype, features or {})))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(3)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)) + "\n")
    start = 0
    for raw in episodes:
        table = raw.table(start)
        if dtype == "image":
            table = table.append_column(CAMERA, _png_cells(raw.frames))
        else:
            _write_video(root / f"videos/chunk-000/{CAMERA}/episode_{raw.index:06d}.mp4", raw.frames, codec, gop)
        path = root / f"data/chunk-000/episode_{raw.index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        start += raw.length
    return root


def write_v3(
    root: Path,
    episodes: list[RawEpisode],
    *,
    dtype: str = "video",
    codec: str = "libx264",
    gop: int = 2,
    features: dict[str, Any] | None = None,
    task_column: str = "task",
) -> Path:
    """All episodes in one parquet file of row groups that begin anywhere, and in one video."""
    _write_json(root / "meta/info.json", _info("v3.0", V3_DATA, V3_VIDEO, _features(dtype, features or {})))
    texts = pa.table({"task_index": pa.array([0, 1, 2]), task_column: pa.array(["task 0", "task 1", "task 2"])})
    pq.write_table(texts, root / "meta/tasks.parquet")
    starts = np.cumsum([0, *[raw.length for raw in episodes]])
    tables = [raw.table(int(start)) for raw, start in zip(episodes, starts[:-1], strict=True)]
    if dtype == "image":
        tables = [table.append_column(CAMERA, _png_cells(raw.frames)) for table, raw in zip(tables, episodes, strict=True)]
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), root / DATA_FILE, row_group_size=7)
    columns: dict[str, Any] = {
        "episode_index": [raw.index for raw in episodes],
        "length": [raw.length for raw in episodes],
        "data/chunk_index": [0] * len(episodes),
        "data/file_index": [0] * len(episodes),
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
    }
    if dtype == "video":
        _write_video(root / VIDEO_FILE, np.concatenate([raw.frames for raw in episodes]), codec, gop)
        columns |= {f"videos/{CAMERA}/{name}": [0] * len(episodes) for name in ("chunk_index", "file_index")}
        columns |= {f"videos/{CAMERA}/from_timestamp": starts[:-1] / FPS, f"videos/{CAMERA}/to_timestamp": starts[1:] / FPS}
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(columns), root / EPISODES_FILE)
    return root


def edit_info(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def edit_table(path: Path, edit: Callable[[dict[str, list[Any]]], Any]) -> None:
    table = pq.read_table(path)
    columns = table.to_pydict()
    edit(columns)
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), path)

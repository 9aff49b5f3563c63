"""The robot of other_robot.py as LeRobot 2.1 kept it: a parquet file and a video per camera and episode, metadata in JSON lines.

python benchmarks/robot_lerobot_v2.py out=data/lerobot_v2 episodes=8
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import command_line
from other_robot import ACTION, OBSERVATION, make_episode
from qtransformer.types import Episode

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def main(out: str = "data/lerobot_v2", episodes: int = 8) -> None:
    """Successes and failures in turn, without the observation after the last action, which LeRobot does not log."""
    root = Path(out)
    made = [make_episode(seed, hesitates=seed % 2 == 1) for seed in range(episodes)]
    start = 0
    for index, episode in enumerate(made):
        path = root / f"data/chunk-000/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(episode, index, start), path)
        for camera, images in episode.images.items():
            _write_video(root / f"videos/chunk-000/observation.images.{camera}/episode_{index:06d}.mp4", images[:-1])
        start += len(episode)
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(_info(len(made), start)))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": made[0].instruction}) + "\n")
    rows = [{"episode_index": i, "tasks": [e.instruction], "length": len(e)} for i, e in enumerate(made)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _table(episode: Episode, index: int, start: int) -> pa.Table:
    steps, count = np.arange(len(episode)), len(episode)
    return pa.table(
        {
            "observation.state": list(episode.proprio[:-1]),
            "action": list(ACTION.to_units(episode.actions)),
            "next.reward": episode.rewards,
            "next.done": episode.terminated,
            "next.success": episode.terminated & episode.success,
            "timestamp": (steps / OBSERVATION.control_hz).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(count, index),
            "index": start + steps,
            "task_index": np.zeros(count, np.int64),
        }
    )


def _info(episodes: int, frames: int) -> dict[str, object]:
    def scalar(dtype: str) -> dict[str, object]:
        return {"dtype": dtype, "shape": [1], "names": None}

    def vector(names: tuple[str, ...]) -> dict[str, object]:
        return {"dtype": "float32", "shape": [len(names)], "names": {"motors": list(names)}}

    cameras = {
        f"observation.images.{name}": {"dtype": "video", "shape": list(shape), "names": ["height", "width", "channels"]}
        for name, shape in OBSERVATION.cameras.items()
    }
    numbers = {"next.reward": "float32", "next.done": "bool", "next.success": "bool", "timestamp": "float32"}
    numbers |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    return {
        "codebase_version": "v2.1",
        "robot_type": "seven joints, synthetic",
        "total_episodes": episodes,
        "total_frames": frames,
        "chunks_size": 1000,
        "fps": round(OBSERVATION.control_hz),
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO,
        "features": {
            "observation.state": vector(OBSERVATION.proprio_names),
            "action": vector(ACTION.names),
            **cameras,
            **{name: scalar(dtype) for name, dtype in numbers.items()},
        },
    }


def _write_video(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(OBSERVATION.control_hz), options={"g": "2", "crf": "20"})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    sys.exit(command_line.run(main))

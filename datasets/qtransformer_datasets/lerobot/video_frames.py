"""Frames of a video by their time, and videos of frames. One pass forward from the keyframe before the first wanted frame.

Files are opened as MP4 and nothing else: left to guess, the library would also follow playlists to other files.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.container
import av.error
import numpy as np

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets.episodes.missing import check_file

Codec = Literal["av1", "h264"]
_ENCODERS = {
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "8"}),
    "h264": ("libx264", {"g": "2", "crf": "30", "bf": "0"}),
}
"""A keyframe at every other frame, as LeRobot writes, so that any frame is found fast."""


@contextmanager
def video_errors(where: str) -> Iterator[None]:
    try:
        yield
    except QTransformerError:
        raise
    except Exception as error:  # damage surfaces as FFmpegError, ValueError, OSError, OverflowError, ...
        raise DatasetError(f"{where}: damaged video ({error}); copy it again, or remove its episodes") from error


def read_frames(path: Path, times: np.ndarray, out: np.ndarray, tolerance: float, where: str) -> None:
    """Decode the frames at `times` [s], increasing, into the first rows of `out`, uint8 (>= len(times), h, w, 3) RGB.

    A frame whose time differs by more than `tolerance` [s] is not taken for another: DatasetError.
    """
    with closing(_decode(path, float(times[0]) - tolerance, out.shape[1:3], where)) as frames:
        before: float | None = None
        for row, wanted in enumerate(times):
            time, frame = next(frames, (None, None))
            while time is not None and time < wanted - tolerance:
                before = time
                time, frame = next(frames, (None, None))
            if time is None or frame is None or time > wanted + tolerance:
                raise DatasetError(_no_frame(where, row, wanted, before, time, tolerance))
            out[row] = frame.to_ndarray(format="rgb24")
            before = time


def image_size(path: Path, where: str) -> tuple[int, int]:
    """Height and width that the video declares."""
    with _open(path, where) as (_, stream, _):
        return stream.codec_context.height, stream.codec_context.width


def video_rate(control_hz: float) -> Fraction:
    """The rate as videos keep it: a fraction, exact for 30, 7.5 or 29.97 Hz."""
    return Fraction(control_hz).limit_denominator(1000)


def video_details(path: Path) -> dict[str, Any]:
    """What LeRobot's `info.json` says about a video."""
    with _open(path, str(path)) as (_, stream, _):
        codec = stream.codec_context
        return {
            "video.height": codec.height,
            "video.width": codec.width,
            "video.codec": {"libdav1d": "av1"}.get(codec.name, codec.name),
            "video.pix_fmt": codec.pix_fmt or "yuv420p",
            "video.is_depth_map": False,
            "video.fps": float(stream.average_rate or 0),
            "video.channels": 3,
            "has_audio": False,
        }


def write_video(path: Path, frames: np.ndarray, rate: Fraction, codec: Codec, where: str) -> None:
    """uint8 (t, h, w, 3) RGB as MP4 with frame i at i / rate [s]."""
    height, width = frames.shape[1:3]
    encoder, options = _ENCODERS[codec]
    if height % 2 or width % 2:
        raise DatasetError(f"{where}: video needs even sizes, found {height} x {width}; use images='png'")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's own way to be quiet about all but errors
    try:
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream(encoder, rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise DatasetError(
            f"{where}: {codec} cannot encode images of {height} x {width} ({error}); use another codec, or images='png'"
        ) from error


def join_videos(path: Path, parts: Sequence[tuple[Path, int]], rate: Fraction) -> None:
    """Videos of `write_video`, with their numbers of frames, one after the other in one file; nothing is encoded again."""
    with video_errors(str(path)), av.open(str(path), "w", format="mp4") as joined:
        out, frames_before = None, 0
        for part, frames in parts:
            with _open(part, str(part)) as (container, stream, time_base):
                out = joined.add_stream_from_template(stream, opaque=True) if out is None else out
                shift = round(frames_before / rate / time_base)
                for packet in container.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, out
                    joined.mux(packet)
            frames_before += frames


def _decode(path: Path, start: float, size: tuple[int, ...], where: str) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """Times [s] and frames from the last keyframe at or before `start` on."""
    with _open(path, where) as (container, stream, time_base):
        found = stream.codec_context.height, stream.codec_context.width
        if found != size:
            raise DatasetError(
                f"{where}: expected frames of {size[0]} x {size[1]}, found {found[0]} x {found[1]} in {path}; "
                "correct the feature's shape"
            )
        container.seek(max(int(start / time_base), 0), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.is_corrupt or frame.pts is None or (frame.height, frame.width) != size:
                raise DatasetError(f"{where}: damaged frame in {path}; copy it again, or remove the episode")
            yield float(frame.pts * time_base), frame


@contextmanager
def _open(path: Path, where: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream, Fraction]]:
    check_file(path, "a video file")
    with video_errors(where if str(path) in where else f"{where}, {path.name}"), av.open(str(path), format="mov") as container:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None or stream.time_base is None:
            raise DatasetError(f"{where}: expected a video, found none that can be decoded in {path}; copy it again")
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"err_detect": "explode"}  # else h264 paints over damage; mp4 has no checksums
        yield container, stream, stream.time_base


def _no_frame(where: str, row: int, wanted: float, before: float | None, after: float | None, tolerance: float) -> str:
    found = " and ".join(f"{time:.4f} s" for time in (before, after) if time is not None) or "none at all"
    return (
        f"{where}: step {row} wants the frame at {wanted:.4f} s, the video has {found} around it, beyond the tolerance of "
        f"{tolerance:g} s; remove the episode, or allow more with tolerance_s=..."
    )

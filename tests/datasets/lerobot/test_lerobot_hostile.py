"""Damaged and hostile datasets: a sentence that names the file, never another file, never memory without end."""

import contextlib
import json
import os
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets.lerobot.layout import PathTemplate
from qtransformer_datasets.lerobot.parquet_footer import declared_sizes
from qtransformer_datasets.lerobot.parquet_guard import open_parquet, parquet_errors
from qtransformer_datasets.lerobot.reader import LeRobotEpisodes
from tests.datasets.lerobot.raw_datasets import CAMERA, DATA_FILE, EPISODES_FILE, VIDEO_FILE

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


@pytest.fixture
def path(tmp_path, write_v3, raw_episode):
    return write_v3(tmp_path / "set", [raw_episode(0, 5), raw_episode(1, 6)])


def read_all(path, **options):
    source = LeRobotEpisodes(path, **({"success": "all"} | options))
    return source.lengths, list(source)


# --- paths


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "template",
    [
        "/etc/file-{file_index:03d}.parquet",
        "../other/file-{file_index:03d}.parquet",
        "data/../../other/file-{file_index:03d}.parquet",
        "data/{file_index.__class__}.parquet",
        "data/{file_index!r}.parquet",
        "data/{file_index:>1000000000}.parquet",
        "data/{0}.parquet",
        "data/{secret}.parquet",
        "data/*/file-{file_index:03d}.parquet",
        "data/{file_index",
        "",
        None,
        7,
    ],
)
def test_templates_hold_plain_placeholders_only(path, edit_info, key, template):
    edit_info(path, lambda info: info.update({key: template}))
    with pytest.raises(DatasetError, match=r"info.json: (data|video)_path expected a relative path|expected data at"):
        read_all(path)


def test_templates_are_filled_and_found_alike(tmp_path):
    template = PathTemplate("data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "")
    numbers = [(0, 2), (0, 10), (1, 0), (1, 1234)]
    for chunk, file in reversed(numbers):
        path = tmp_path / template.fill(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "data/chunk-000/file-final.parquet").touch()
    found = template.find(tmp_path)
    assert [(n["chunk_index"], n["file_index"]) for _, n in found] == numbers
    assert found[0][0] == tmp_path / "data/chunk-000/file-002.parquet"


@pytest.mark.parametrize("key", ["..", "a/../../b", "/etc/passwd", "a\\b", "{video_key}", "a\0b"])
def test_camera_names_are_no_paths(path, edit_info, key):
    edit_info(path, lambda info: info["features"].update({key: info["features"][CAMERA]}))
    with pytest.raises(DatasetError, match="expected a plain name"):
        read_all(path)


@pytest.mark.parametrize("file", [DATA_FILE, VIDEO_FILE, "meta/info.json", "meta/tasks.parquet", "meta/episodes", "data"])
def test_links_out_of_the_dataset_are_refused(tmp_path, path, file):
    (tmp_path / "outside").mkdir()
    moved = tmp_path / "outside" / "moved"
    (path / file).rename(moved)
    (path / file).symlink_to(moved)
    with pytest.raises(DatasetError, match=r"leads out of the dataset, to .*outside/moved"):
        read_all(path)


def test_links_within_the_dataset_and_the_hubs_own_are_followed(tmp_path, path):
    (path / DATA_FILE).rename(path / "real.parquet")
    (path / DATA_FILE).symlink_to(path / "real.parquet")
    assert read_all(path)[0] == [5, 6]
    cache = tmp_path / "datasets--me--x"
    (cache / "blobs").mkdir(parents=True)
    shutil.copytree(path, cache / "snapshots" / "abc")
    for number, file in enumerate([VIDEO_FILE, "meta/info.json"]):
        here = cache / "snapshots/abc" / file
        here.rename(cache / "blobs" / str(number))
        here.symlink_to(os.path.relpath(cache / "blobs" / str(number), here.parent))
    assert read_all(cache / "snapshots/abc")[0] == [5, 6]


def test_a_playlist_in_the_guise_of_a_video_opens_nothing(path):
    (path / VIDEO_FILE).rename((path / VIDEO_FILE).with_name("other.mp4"))
    (path / VIDEO_FILE).write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(DatasetError, match="damaged video"):
        read_all(path)


# --- damage


@pytest.mark.parametrize("file", [DATA_FILE, VIDEO_FILE, "meta/info.json", "meta/tasks.parquet", EPISODES_FILE])
def test_pointers_empty_and_cut_files_are_told_apart(path, file):
    whole = (path / file).read_bytes()
    for content, message in [
        (LFS.encode(), r"found a git-lfs pointer to it; run `git lfs pull`"),
        (b"", "found an empty one"),
        (whole[: len(whole) // 2], r"has no end .*killed or the copy was cut off|damaged video|expected JSON"),
        (b"hello there, this is no such file at all", r"has no end|damaged|expected JSON"),
    ]:
        (path / file).write_bytes(content)
        with pytest.raises(DatasetError, match=message) as caught:
            read_all(path)
        assert os.path.basename(file) in str(caught.value)


def test_missing_files_are_named(path):
    (path / VIDEO_FILE).unlink()
    with pytest.raises(DatasetError, match=r"file-000.mp4: expected a video file, found nothing"):
        read_all(path)
    shutil.rmtree(path / "data")
    with pytest.raises(DatasetError, match=r"expected data at data/chunk-.*found none; download the data too"):
        read_all(path)


def test_flipped_bytes_of_checked_pages_are_an_error(path):
    table = pq.read_table(path / DATA_FILE)
    pq.write_table(table, path / DATA_FILE, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray((path / DATA_FILE).read_bytes())
    place = data.index(table["observation.state"].combine_chunks().flatten().to_numpy()[:8].tobytes())
    data[place + 9] ^= 1
    (path / DATA_FILE).write_bytes(data)
    with pytest.raises(DatasetError, match=r"damaged parquet .*CRC"):
        read_all(path)


def test_damage_within_a_video_is_never_shown(path, raw_episode):
    data = bytearray((path / VIDEO_FILE).read_bytes())
    begin = data.index(b"mdat") + 4
    rng = np.random.default_rng(0)
    for place in rng.integers(begin + 900, data.index(b"moov") - 8 if data.index(b"moov") > begin else len(data) - 8, 300):
        data[place] ^= 0xFF
    (path / VIDEO_FILE).write_bytes(data)
    with pytest.raises(DatasetError, match=r"damaged|wants the frame"):
        read_all(path)


# --- sizes


def test_rows_that_no_file_of_that_size_can_hold_are_refused(path):
    rows = 1 << 24
    zeros = pa.array(np.zeros(rows, np.int64))
    columns = {"episode_index": zeros, "frame_index": zeros, "timestamp": zeros, "action": zeros, "observation.state": zeros}
    pq.write_table(pa.table(columns), path / DATA_FILE, compression="zstd")
    assert (path / DATA_FILE).stat().st_size < 1 << 20
    with pytest.raises(DatasetError, match=r"declares 16777216 rows .*damaged or hostile"):
        read_all(path)


def test_more_frames_than_the_videos_can_hold_are_refused_before_they_are_allocated(path, edit_info):
    size = (path / VIDEO_FILE).stat().st_size
    steps = np.arange(size)
    table = {name: pa.array(steps * 0) for name in ("episode_index", "task_index")}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.random.default_rng(0).normal(size=2 * size).astype(np.float32)), 2)
    table |= {"frame_index": pa.array(steps), "timestamp": pa.array(steps / 10), "action": lists, "observation.state": lists}
    pq.write_table(pa.table(table), path / DATA_FILE)
    episodes = pq.read_table(path / EPISODES_FILE).slice(0, 1).to_pydict()
    episodes[f"videos/{CAMERA}/to_timestamp"] = [size / 10]
    pq.write_table(pa.table(episodes), path / EPISODES_FILE)
    source = LeRobotEpisodes(path, success="all")
    with pytest.raises(DatasetError, match=rf"declares {size} frames of camera 'wrist', its files have room for"):
        _ = source.lengths


def test_declared_sizes_are_those_that_parquet_writes(tmp_path):
    """Lists of lists, empty cells, several row groups, all codecs: against the library's own numbers for sound files."""
    rows = 500
    table = pa.table(
        {
            "number": pa.array(range(rows)),
            "empty": pa.array([None, 1.5] * (rows // 2)),
            "lists": pa.array([[[1.0], [2.0, 3.0]]] * rows),
            "image": pa.array([{"bytes": b"x" * 300, "path": "p"}] * rows),
            "flag": pa.array([True, False] * (rows // 2)),
        }
    ).replace_schema_metadata({"pandas": "x" * 5000})
    for codec in ("none", "snappy", "zstd"):
        pq.write_table(table, tmp_path / "a.parquet", compression=codec, row_group_size=120)
        metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        expected = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)
        assert declared_sizes(tmp_path / "a.parquet") == (rows, expected)


def test_a_footer_that_contradicts_itself_does_not_end_the_process(path):
    """Where the library counts levels of a column and finds another number, its own view of the column aborts."""
    data = bytearray((path / DATA_FILE).read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(footer, len(data) - 8):
        damaged = data.copy()
        damaged[place] ^= 1
        (path / DATA_FILE).write_bytes(damaged)
        with contextlib.suppress(DatasetError), open_parquet(path / DATA_FILE) as file, parquet_errors("x"):
            file.read(columns=["episode_index", "action"])


@pytest.mark.parametrize("shape", [[1 << 20, 1 << 20, 3], [64, 96, -3], [64, 96, 1 << 40], ["64", 96, 3], 7, [3] * 9])
def test_absurd_shapes_are_refused(path, edit_info, shape):
    edit_info(path, lambda info: info["features"][CAMERA].update(shape=shape))
    with pytest.raises(DatasetError, match=r"expected (RGB images|a dtype and a shape)"):
        read_all(path)


# --- anything


@pytest.mark.parametrize("seed", range(4))
def test_any_damage_ends_in_the_projects_own_error_or_in_sound_episodes(tmp_path, write_v2, write_v3, raw_episode, seed):
    rng = random.Random(seed)
    write, dtype = [(write_v2, "video"), (write_v2, "image"), (write_v3, "video"), (write_v3, "image")][seed % 4]
    good = write(tmp_path / "good", [raw_episode(0, 3), raw_episode(1, 4)], dtype=dtype)
    files = sorted(file for file in good.rglob("*") if file.is_file())
    for case in range(40):
        bad = tmp_path / f"bad{case}"
        shutil.copytree(good, bad)
        victim = bad / rng.choice(files).relative_to(good)
        data = bytearray(victim.read_bytes())
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 8])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        victim.write_bytes(data)
        with contextlib.suppress(QTransformerError):
            read_all(bad)
        shutil.rmtree(bad)


def test_json_of_the_wrong_kind_is_refused_in_one_sentence(path):
    info = json.loads((path / "meta/info.json").read_text())
    for key, value in [("features", []), ("features", {"action": 3}), ("fps", "fast"), ("fps", None), ("fps", float("nan"))]:
        (path / "meta/info.json").write_text(json.dumps(info | {key: value}))
        with pytest.raises(DatasetError, match=r"meta/info.json"):
            read_all(path)
    (path / "meta/info.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="expected JSON"):
        read_all(path)

"""Broken and hostile bags: refused by name, nothing outside touched, and what is left of them only by flag."""

import contextlib
import os
import shutil
import sqlite3
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag import salvage
from qtransformer_datasets.rosbag import storage as bag_storage
from qtransformer_datasets.rosbag.reader import BagEpisodes
from qtransformer_datasets.rosbag.report import inspect_bag
from qtransformer_datasets.rosbag.salvage import zstd


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", "mcap"), ("sqlite3", "db3")])
def test_a_cut_off_bag_is_refused_and_its_rest_read_by_flag(robot, write_bag, contract_file, storage, suffix) -> None:
    path = write_bag(robot.demonstration(steps=60), storage=storage)
    cut(path / f"bag.{suffix}", 0.6)
    with pytest.raises(DatasetError, match=r"damaged bag .*; copy it again, or read what is left with partial=True") as caught:
        BagEpisodes(path, contract=contract_file())
    assert str(path) in str(caught.value)
    source = BagEpisodes(path, contract=contract_file(), partial=True, outcome="success")
    (episode,) = source
    assert (episode.info["outcome"], episode.success, bool(episode.truncated[-1])) == ("cut", False, True)
    assert 25 <= len(episode) < 45
    for row in (0, len(episode)):
        assert np.array_equal(episode.images["wrist"][row], robot.wrist_pixels(row))
        assert episode.proprio[row, 0] == np.float32(robot.joint_value(row, 0))
    assert any("rows after" in problem or "cut off" in problem for problem in source.reports[0].problems)


def test_a_killed_recorder_leaves_an_mcap_without_an_index(robot, write_bag, contract_file) -> None:
    path = write_bag(robot.demonstration())
    file = path / "bag.mcap"
    os.truncate(file, file.stat().st_size - 8)
    (path / "metadata.yaml").unlink()
    with pytest.raises(DatasetError, match=r"has no metadata\.yaml"):
        BagEpisodes(path, contract=contract_file())
    (episode,) = BagEpisodes(path, contract=contract_file(), partial=True)
    assert (len(episode), episode.success) == (5, True)


def test_without_metadata_whole_files_are_read_by_flag(bag, contract_file) -> None:
    (bag / "metadata.yaml").unlink()
    with pytest.raises(DatasetError, match=r"has no metadata\.yaml; rebuild it .*partial=True"):
        BagEpisodes(bag, contract=contract_file())
    source = BagEpisodes(bag, contract=contract_file(), partial=True)
    assert source.lengths == [5]
    assert "metadata.yaml" in source.reports[0].problems[0]


@pytest.mark.parametrize("text", ["", "rosbag2_bagfile_information: 3", "a: !!python/object/apply:os.getcwd []", "\x00", "[" * 999])
def test_broken_metadata_is_named(bag, contract_file, text: str) -> None:
    (bag / "metadata.yaml").write_text(text)
    with pytest.raises(DatasetError, match=r"metadata.yaml.*partial=True"):
        BagEpisodes(bag, contract=contract_file())


def test_one_broken_bag_of_many_is_left_out_by_flag_and_reported(robot, write_bag, contract_file) -> None:
    for name in ("a", "b", "c", "d"):
        path = write_bag(robot.demonstration(steps=3)[: 1 if name == "d" else None], f"all/{name}")
    (path.parent / "b" / "b.mcap").write_bytes(b"not a bag")
    with pytest.raises(DatasetError, match=r"all/b/b\.mcap: expected MCAP"):
        BagEpisodes(path.parent, contract=contract_file())
    source = BagEpisodes(path.parent, contract=contract_file(), partial=True)
    assert [episode.info["bag"] for episode in source] == ["a", "c"]
    assert [bool(report.problems) for report in source.reports] == [False, True, False, True]


def test_a_bad_chunk_costs_its_messages_only(robot, write_bag, contract_file, tmp_path) -> None:
    path = write_bag(robot.demonstration(steps=120))
    file = path / "bag.mcap"
    data = bytearray(file.read_bytes())
    chunks = [begin for op, begin, _ in salvage._records(memoryview(data)) if op == 6]
    struct.pack_into("<Q", data, chunks[1] + 16, 5)  # declares five bytes
    struct.pack_into("<I", data, chunks[1] + 28, 4)  # of a compression of four letters
    data[chunks[1] + 32 : chunks[1] + 36] = b"zstd"
    file.write_bytes(data)
    with pytest.raises(DatasetError, match="bag"):
        BagEpisodes(path, contract=contract_file())
    wide = contract_file(("low: -1\n    high: 1", "low: -3\n    high: 3"))
    source = BagEpisodes(path, contract=wide, partial=True, on_gap="split")
    assert len(source) == 2
    assert "a chunk at byte" in " ".join(source.reports[0].problems)
    assert source.read(1).success


def test_missing_messages_that_metadata_declares_are_noticed(bag, contract_file) -> None:
    path = bag / "metadata.yaml"
    path.write_text(path.read_text().replace("message_count: 6", "message_count: 60"))
    with pytest.raises(DatasetError, match=r"messages are lost \(/wrist/image_raw 6 of 60"):
        BagEpisodes(bag, contract=contract_file())


def test_messages_and_chunks_may_be_compressed(robot, write_bag, contract_file) -> None:
    plain = BagEpisodes(write_bag(robot.demonstration()), contract=contract_file()).read(0)
    for storage, mode in [
        ("mcap", CompressionMode.MESSAGE),
        ("sqlite3", CompressionMode.MESSAGE),
        ("mcap", CompressionMode.STORAGE),
    ]:
        path = write_bag(robot.demonstration(), f"{storage}{mode}", storage, mode=mode, fmt=CompressionFormat.ZSTD)
        packed = BagEpisodes(path, contract=contract_file()).read(0)
        assert np.array_equal(packed.images["wrist"], plain.images["wrist"])
        assert np.array_equal(packed.actions, plain.actions)


def test_files_compressed_as_a_whole_are_to_be_unpacked_first(robot, write_bag, contract_file) -> None:
    path = write_bag(robot.demonstration(), mode=CompressionMode.FILE, fmt=CompressionFormat.ZSTD)
    with pytest.raises(DatasetError, match=r"compressed as a whole; unpack them \(zstd -d FILE\)"):
        BagEpisodes(path, contract=contract_file())


def chunk(compression: str, packed: bytes, declared: int) -> bytes:
    head = struct.pack("<QQQI", 0, 1, declared, 0) + struct.pack("<I", len(compression)) + compression.encode()
    body = head + struct.pack("<Q", len(packed)) + packed
    return b"\x06" + struct.pack("<Q", len(body)) + body


@pytest.mark.parametrize(
    ("compression", "packed", "declared", "message"),
    [
        ("zstd", zstd.compress(bytes(1 << 22)), 1000, "unpacks to more than the 1000 bytes"),
        ("lz4", lz4.frame.compress(bytes(1 << 22)), 1000, "unpacks to more than the 1000 bytes"),
        ("zstd", zstd.compress(bytes(100)), 1 << 40, "declares 1099511627776 bytes, more than"),
        ("zstd", zstd.compress(bytes(100)) * 2, 100, "unpacks|holds|damaged"),
        ("zstd", zstd.compress(bytes(100)), 200, "declares 200 bytes, holds 100"),
        ("brotli", b"x", 1, "compressed by 'brotli'"),
    ],
)
def test_a_chunk_that_unpacks_to_other_than_it_declares_is_refused(
    tmp_path, contract_file, compression, packed, declared, message
) -> None:
    magic = b"\x89MCAP0\r\n"
    head = b"\x01" + struct.pack("<Q", 12) + struct.pack("<I", 4) + b"ros2" + struct.pack("<I", 0)
    footer = b"\x02" + struct.pack("<Q", 20) + bytes(20)
    path = tmp_path / "bomb.mcap"
    path.write_bytes(magic + head + chunk(compression, packed, declared) + footer + magic)
    with pytest.raises(DatasetError, match=message):
        BagEpisodes(path, contract=contract_file())


def test_a_message_cannot_unpack_without_end(robot, write_bag, contract_file, monkeypatch) -> None:
    monkeypatch.setattr(bag_storage, "MAX_MESSAGE_BYTES", 10_000)
    path = write_bag(robot.demonstration(), mode=CompressionMode.MESSAGE, fmt=CompressionFormat.ZSTD)
    with pytest.raises(DatasetError, match="unpacks to more than the 10000 bytes"):
        BagEpisodes(path, contract=contract_file())


def test_a_bomb_is_stopped_before_it_unfolds() -> None:
    bomb = zstd.compress(bytes(1 << 26))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="unpacks to more than"):
            salvage.unpack_zstd(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_no_link_leads_out_of_a_bag(robot, write_bag, contract_file, tmp_path) -> None:
    outside = write_bag(robot.demonstration(), "outside")
    inside = tmp_path / "all" / "inside"
    shutil.copytree(outside, inside)
    (inside / "outside.mcap").unlink()
    (inside / "outside.mcap").symlink_to(outside / "outside.mcap")
    with pytest.raises(DatasetError, match=r"outside.mcap points outside the folder"):
        BagEpisodes(inside, contract=contract_file())
    shutil.rmtree(inside)
    inside.symlink_to(outside)
    with pytest.raises(DatasetError, match=r"inside points outside the folder"):
        BagEpisodes(inside.parent, contract=contract_file())


@pytest.mark.parametrize("name", ["../outside/outside.mcap", "/etc/passwd", "..", ""])
def test_the_list_of_files_cannot_name_others(robot, write_bag, contract_file, name: str) -> None:
    write_bag(robot.demonstration(), "outside")
    path = write_bag(robot.demonstration(), "bag")
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", f"- '{name}'"))
    with pytest.raises(DatasetError, match=str(path)):
        BagEpisodes(path, contract=contract_file())


def test_a_name_cannot_lead_elsewhere(robot, write_bag, contract_file) -> None:
    """`rosbags` opens sqlite3 by URI: %2F in a name would be a slash."""
    write_bag(robot.demonstration(), "outside", "sqlite3")
    path = write_bag(robot.demonstration(), "bag", "sqlite3")
    (path / "bag.db3").rename(path / "..%2Foutside%2Foutside.db3")
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.db3", "- '..%2Foutside%2Foutside.db3'"))
    with pytest.raises(DatasetError, match="must not contain %"):
        BagEpisodes(path, contract=contract_file())


def test_an_unmerged_log_of_a_killed_recorder_is_noticed(robot, write_bag, contract_file) -> None:
    path = write_bag(robot.demonstration(), storage="sqlite3")
    (path / "bag.db3-wal").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"bag.db3-wal holds messages that a killed recorder never merged"):
        BagEpisodes(path, contract=contract_file())


def test_a_definition_that_is_not_the_standard_one_is_refused(robot, write_bag, contract_file) -> None:
    path = write_bag(robot.demonstration(), storage="sqlite3")
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("UPDATE topics SET type_description_hash = 'RIHS01_00' WHERE name = '/joint_states'")
    database.close()
    with pytest.raises(DatasetError, match="/joint_states was recorded with a sensor_msgs/msg/JointState that is not the standard"):
        BagEpisodes(path, contract=contract_file())


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_and_cuts_raise_nothing_but_the_projects_errors(robot, write_bag, contract_file, storage, seed) -> None:
    path = write_bag(robot.demonstration(steps=2), storage=storage)
    file = next(f for f in path.iterdir() if f.suffix != ".yaml")
    rng, data = np.random.default_rng(seed), np.fromfile(file, np.uint8)
    metadata = [int(i) for i in np.flatnonzero(data == ord("/"))[:20]]  # near topics' names: where structure is
    places = [*rng.integers(0, len(data), 20), *(rng.choice(metadata, 4) + rng.integers(-30, 30, 4))]
    data[np.clip(places, 0, len(data) - 1)] = rng.integers(0, 256, len(places))
    file.write_bytes(data[: len(data) - int(rng.integers(0, 2) * rng.integers(0, len(data)))].tobytes())
    for partial in (False, True):
        with contextlib.suppress(DatasetError):
            for episode in BagEpisodes(path, contract=contract_file(), partial=partial, on_gap="split", outcome="failure"):
                assert len(episode)


def test_any_bag_can_be_inspected_without_a_contract(robot, write_bag) -> None:
    path = write_bag(robot.demonstration(steps=60))
    report = inspect_bag(path)
    counts: dict[str, Any] = {t.topic: (t.count, t.type) for t in report.topics}
    assert counts["/joint_states"] == (61, "sensor_msgs/msg/JointState")
    assert counts["/outcome"] == (1, "std_msgs/msg/String")
    cut(path / "bag.mcap", 0.5)
    report = inspect_bag(path)
    assert 0 < next(t.count for t in report.topics if t.topic == "/joint_states") < 61
    assert "damaged bag" in report.text()


@pytest.mark.parametrize("prepare", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_what_is_no_bag_is_said_to_be_none(tmp_path, contract_file, prepare) -> None:
    prepare(tmp_path / "x")
    with pytest.raises(DatasetError, match="expected a bag"):
        BagEpisodes(tmp_path / "x", contract=contract_file())

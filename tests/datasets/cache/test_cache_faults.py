"""Damaged, killed, full or forged: a cache is whole and its source's, or it is not used."""

import json
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import EpisodeDataset, open_episodes
from qtransformer_datasets.cache import builder as cache_builder
from qtransformer_datasets.cache import frame_cache
from tests.datasets.cache.caches import folder_of, in_child, is_mapped, same_data


@pytest.mark.parametrize("name", ["proprio.npy", "instruction_id.npy", "episodes.jsonl", "manifest.json"])
@pytest.mark.parametrize("change", ["flipped", "cut", "gone"])
def test_a_damaged_cache_is_told_and_built_again(name, change, path, assert_same_episode) -> None:
    EpisodeDataset(path, cache="always")
    file = folder_of(path) / name
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes(data) if change == "flipped" else bytes(data[:-3]))
    if (name, change) != ("manifest.json", "gone"):
        with pytest.warns(UserWarning, match="damaged cache is not used"):
            assert not is_mapped(EpisodeDataset(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rebuilt = EpisodeDataset(path, cache="always")
    same_data(rebuilt, EpisodeDataset(path, cache="never"), assert_same_episode)


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_images_that_are_cut_or_swapped_for_a_link_are_not_mapped(size, path, tmp_path) -> None:
    EpisodeDataset(path, cache="always")
    file = folder_of(path) / "image_0.npy"
    data = file.read_bytes()
    if size:
        file.write_bytes(data[:-1] if size < 0 else data + b"x")
    else:
        (tmp_path / "elsewhere").write_bytes(data)
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="damaged cache is not used"):
        assert not is_mapped(EpisodeDataset(path))


def test_verify_finds_a_flipped_bit_of_an_image(path) -> None:
    dataset = EpisodeDataset(path, cache="always")
    dataset.verify()
    with (folder_of(path) / "image_0.npy").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(DatasetError, match=r"'wrist'.*checksum"):
        EpisodeDataset(path).verify()


@pytest.mark.parametrize("sync_bytes", [1, 2700, 1 << 40])
def test_a_killed_build_goes_on_where_it_was_safe(sync_bytes, path, monkeypatch, assert_same_episode) -> None:
    monkeypatch.setattr(cache_builder, "SYNC_BYTES", sync_bytes)

    def until_killed() -> None:
        def checked(*args: Any) -> Iterator:
            for i, episode in enumerate(original(*args)):
                if i == 8:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield episode

        original = cache_builder.checked_episodes
        cache_builder.checked_episodes = checked
        EpisodeDataset(path, cache="always")

    assert in_child(until_killed) == -signal.SIGKILL
    assert not list(path.parent.glob("*.cache/*/manifest.json"))
    for file in path.parent.glob("*.cache/*.part/*.npy"):  # what was on its way when the power went
        with file.open("ab") as unsafe:
            unsafe.write(b"half a row")
    read: list[int] = []
    reader = type(open_episodes(path))
    one = reader._load
    monkeypatch.setattr(reader, "_load", lambda self, file, index: (read.append(index), one(self, file, index))[1])
    built = EpisodeDataset(path, cache="always")
    assert read == list(range({1: 8, 2700: 7, 1 << 40: 0}[sync_bytes], 12))
    same_data(built, EpisodeDataset(path, cache="never"), assert_same_episode)
    built.verify()


def test_what_a_killed_build_left_of_another_source_is_thrown_away(path, write_file, episodes, monkeypatch) -> None:
    monkeypatch.setattr(cache_builder, "SYNC_BYTES", 1)

    def until_interrupted(*args: Any) -> Iterator:
        yield from islice(original(*args), 3)
        raise KeyboardInterrupt

    original = cache_builder.checked_episodes
    with monkeypatch.context() as patch:
        patch.setattr(cache_builder, "checked_episodes", until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            EpisodeDataset(path, cache="always")
    assert list(path.parent.glob("*.cache/*.part/progress.json"))
    path.unlink()
    write_file(episodes[5:], path.name)
    assert EpisodeDataset(path, cache="always").fingerprint == EpisodeDataset(path, cache="never").fingerprint
    assert not list(path.parent.glob("*.cache/*.part"))


def test_two_that_build_at_once_build_one(path, tmp_path, monkeypatch) -> None:
    original = frame_cache._build

    def slow(*args: Any) -> None:
        (tmp_path / f"built-{os.getpid()}").touch()
        time.sleep(0.3)
        original(*args)

    def work() -> None:
        frame_cache._build = slow
        (tmp_path / f"read-{EpisodeDataset(path, cache='always').fingerprint}-{os.getpid()}").touch()

    children = [in_child(work, wait=False) for _ in range(2)]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert len(list(tmp_path.glob("built-*"))) == 1
    expected = EpisodeDataset(path, cache="never").fingerprint
    assert len(list(tmp_path.glob(f"read-{expected}-*"))) == 2


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(path) -> None:
    EpisodeDataset(path)  # whatever else is imported is imported
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(DatasetError, match=r"the cache of .*demo\.hdf5 needs 0\.0 MB; the disk is full.*QTRANSFORMER_CACHE"):
            EpisodeDataset(path, cache="always")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [f.suffix for f in path.parent.glob("*.cache/*")] == [".lock"]
    assert is_mapped(EpisodeDataset(path, cache="always")), "with room again it is built"


def test_room_is_asked_for_before_anything_is_decoded(path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000})())
    monkeypatch.setattr("qtransformer_datasets.robomimic.reader.HDF5Episodes._load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DatasetError, match=r"0\.0 MB are free"):
        EpisodeDataset(path, cache="always")


def test_a_bad_episode_leaves_no_half_cache(tmp_path, write_foreign, foreign_demo) -> None:
    good, bad = foreign_demo(4, 0), foreign_demo(4, 1)
    bad["actions"][2, 0] = np.nan
    path = write_foreign(tmp_path / "bad.hdf5", [good, bad])
    with pytest.raises(DatasetError, match=r"demo_1.*finite"):
        EpisodeDataset(open_episodes(path, dones="terminated"), cache="always")
    assert [f.suffix for f in path.parent.glob("*.cache/*")] == [".lock"]


def test_a_source_written_to_meanwhile_is_not_cached(path, monkeypatch) -> None:
    def touched(*args: Any) -> Iterator:
        yield from original(*args)
        os.utime(path, ns=(1, 1))

    original = cache_builder.checked_episodes
    monkeypatch.setattr(cache_builder, "checked_episodes", touched)
    with pytest.raises(DatasetError, match="changed while its cache was built"):
        EpisodeDataset(path, cache="always")
    assert not list(path.parent.glob("*.cache/*/manifest.json"))


def test_nothing_in_a_manifest_becomes_a_path_or_is_believed(path) -> None:
    EpisodeDataset(path, cache="always")
    file = folder_of(path) / "manifest.json"
    content = json.loads(file.read_text())["content"]
    content["frames"] = 10**15
    file.write_text(json.dumps({"sha256": frame_cache.sha256(content), "content": content}))
    with pytest.warns(UserWarning, match="damaged cache is not used"):
        assert not is_mapped(EpisodeDataset(path))


def test_a_manifest_that_was_altered_is_not_believed(path) -> None:
    EpisodeDataset(path, cache="always")
    file = folder_of(path) / "manifest.json"
    file.write_text(file.read_text().replace("task 1", "task 9"))
    with pytest.warns(UserWarning, match=r"damaged.*manifest\.json differs from its checksum"):
        assert "task 9" not in EpisodeDataset(path).frames().instructions

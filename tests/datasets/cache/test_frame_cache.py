"""A cache gives what memory gives, or it is not used."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer.batch import Batch
from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ObservationSpec
from qtransformer_datasets import EpisodeDataset, HDF5Writer, open_episodes
from qtransformer_datasets.cache import builder as cache_builder
from qtransformer_datasets.cache import frame_cache
from qtransformer_datasets.stream.frames import array_fields

SHAPE = {"batch_size": 3, "lead": 1, "steps": 3, "lookahead": 1, "seed": 4}


@pytest.fixture
def episodes(make_episode) -> list:
    times = np.array([0.0, 0.1, 0.25])
    return [make_episode(2 + i % 5, i, end=("terminated", "truncated")[i % 2], instruction=f"task {i % 3}") for i in range(11)] + [
        make_episode(2, 50, end="truncated", has_final_observation=False, timestamps=times, info={"mode": "slow"})
    ]


@pytest.fixture
def path(write_file, episodes) -> Path:
    return write_file(episodes)


def in_child(work: Callable[[], Any], wait: bool = True) -> Any:
    """Run in a forked process; its exit code, or the process itself."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    if not wait:
        return process
    process.join(60)
    return process.exitcode


def folder_of(path: Path) -> Path:
    [manifest] = path.parent.glob(f"{path.name}.cache/*/manifest.json")
    return manifest.parent


def same_batch(a: Batch, b: Batch) -> None:
    for field in fields(Batch):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            assert all(torch.equal(left[camera], right[camera]) for camera in left)
        else:
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, field.name


def same_data(found: EpisodeDataset, expected: EpisodeDataset, assert_same_episode: Callable) -> None:
    for (name, a), (_, b) in zip(array_fields(found.frames()), array_fields(expected.frames()), strict=True):
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name
    assert found.frames().instructions == expected.frames().instructions
    assert found.fingerprint == expected.fingerprint
    for a, b in zip(found, expected, strict=True):
        assert_same_episode(a, b)
        assert a.images["wrist"].flags.writeable
        assert a.proprio.flags.writeable
        assert (a.timestamps is None) == (b.timestamps is None)
        assert a.timestamps is None or np.array_equal(a.timestamps, b.timestamps)
    settings = [{}, {"balance": "success"}, {"filter": "success"}, {"balance": "instruction", "rank": 1, "world_size": 3}]
    for more in settings:
        batches = zip(found.segments(**SHAPE, **more), expected.segments(**SHAPE, **more), strict=True)
        for a, b in islice(batches, 12):
            same_batch(a, b)


def is_mapped(dataset: EpisodeDataset) -> bool:
    return dataset.frames().images["wrist"].mapped


def test_a_cache_gives_what_memory_gives_bit_for_bit(path, assert_same_episode) -> None:
    memory, built = EpisodeDataset(path, cache="never"), EpisodeDataset(path, cache="always")
    again = EpisodeDataset(path)
    assert [is_mapped(d) for d in (memory, built, again)] == [False, True, True]
    same_data(built, memory, assert_same_episode)
    same_data(again, memory, assert_same_episode)
    assert np.array_equal(built.stats.proprio_std, memory.stats.proprio_std)
    assert built.episodes().__next__().timestamps is None
    assert list(memory)[-1].timestamps.tolist() == [0.0, 0.1, 0.25]
    assert list(built)[-1].info == {"mode": "slow"}


def test_caches_files_in_memory_and_sources_make_one_stream(write_file, episodes, make_source, assert_same_episode) -> None:
    cached, other = write_file(episodes[:4], "a.hdf5"), write_file(episodes[4:7], "b.hdf5")
    EpisodeDataset(cached, cache="always")
    mixed = EpisodeDataset([cached, other, make_source(episodes[7:])])
    assert not other.with_name("b.hdf5.cache").exists()
    same_data(mixed, EpisodeDataset([make_source(e) for e in (episodes[:4], episodes[4:7], episodes[7:])]), assert_same_episode)
    assert mixed.fingerprint == EpisodeDataset(make_source(episodes)).fingerprint


def test_only_what_memory_has_no_room_for_is_cached_unasked(path) -> None:
    images = EpisodeDataset(path).num_frames * 6 * 8 * 3
    assert not is_mapped(EpisodeDataset(path, memory_limit=images))
    assert not path.with_name(f"{path.name}.cache").exists()
    assert is_mapped(EpisodeDataset(path, memory_limit=images - 1))
    assert is_mapped(EpisodeDataset(path))
    assert not is_mapped(EpisodeDataset(path, cache="never"))


def test_formats_that_are_slow_to_read_are_cached_unasked(path, monkeypatch) -> None:
    source = open_episodes(path)
    monkeypatch.setattr(source, "opening", replace(source.opening, is_slow=True))
    assert is_mapped(EpisodeDataset(source))


def test_images_are_decoded_once_and_never_again(path, monkeypatch) -> None:
    EpisodeDataset(path, cache="always")
    monkeypatch.setattr("qtransformer_datasets.robomimic.reader.HDF5Episodes._load", lambda *_: pytest.fail("decoded again"))
    dataset = EpisodeDataset(path)
    for _ in islice(dataset.segments(**SHAPE), 30):
        pass
    assert dataset.fingerprint
    assert dataset.stats


def test_a_changed_source_is_cached_anew(path, write_file, episodes, make_source, assert_same_episode) -> None:
    EpisodeDataset(path, cache="always")
    path.unlink()
    write_file(episodes[:5], path.name)
    assert not is_mapped(EpisodeDataset(path)), "what is out of date is not used"
    found = EpisodeDataset(path, cache="always")
    assert is_mapped(found)
    same_data(found, EpisodeDataset(make_source(episodes[:5])), assert_same_episode)


def test_another_way_of_reading_has_a_cache_of_its_own(tmp_path, write_foreign, foreign_demo) -> None:
    path = write_foreign(tmp_path / "foreign.hdf5", [foreign_demo(4, s) for s in range(3)])
    ends = {}
    for _ in range(2):
        for dones in ("terminated", "truncated"):
            frames = EpisodeDataset(open_episodes(path, dones=dones), cache="always").frames()
            ends[dones] = frames.terminated.sum(), frames.truncated.sum()
    assert ends == {"terminated": (3, 0), "truncated": (0, 3)}
    assert len(list(path.with_name("foreign.hdf5.cache").glob("*/manifest.json"))) == 2


def test_a_reader_made_by_hand_does_not_say_how_and_is_read_into_memory(path) -> None:
    from qtransformer_datasets import HDF5Episodes

    assert not is_mapped(EpisodeDataset(HDF5Episodes(path), cache="always"))


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


def test_another_place_can_be_named(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(frame_cache.ROOT_VARIABLE, str(tmp_path / "fast"))
    assert is_mapped(EpisodeDataset(path, cache="always"))
    assert list((tmp_path / "fast").glob("demo.hdf5-*.cache/*/manifest.json"))
    assert not path.with_name("demo.hdf5.cache").exists()
    assert is_mapped(EpisodeDataset(path))


def test_data_that_cannot_be_written_beside_are_cached_in_the_users_own_folder(path, tmp_path, monkeypatch) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: "home" in str(p) and allowed(p, mode))
    assert is_mapped(EpisodeDataset(path, cache="always"))
    assert list((tmp_path / "home").glob("qtransformer/demo.hdf5-*.cache/*/manifest.json"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert is_mapped(EpisodeDataset(path)), "reading needs no right to write"
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(DatasetError, match=r"no place for its cache.*QTRANSFORMER_CACHE"):
        EpisodeDataset(path, cache="always")


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


def test_unknown_names_are_refused(path) -> None:
    with pytest.raises(ConfigError, match="cache expected one of auto, always, never, found 'sometimes'"):
        EpisodeDataset(path, cache="sometimes")


GROWTH = """
import sys
from pathlib import Path
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.data_source import DataSource

def anonymous_bytes():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024

before = most = anonymous_bytes()
view = {"cameras": {"hand": "wrist"}, "image_size": [191, 255], "rewards": "success"} if sys.argv[4:] else {}
dataset = EpisodeDataset(DataSource.parse({"path": sys.argv[1], **view}).open(), cache=sys.argv[2], memory_limit=int(sys.argv[3]))
batches = dataset.segments(batch_size=2, lead=1, steps=4, lookahead=1, seed=0)
for _ in range(2 * dataset.num_frames // 8):
    next(batches)
    most = max(most, anonymous_bytes())
dataset.fingerprint
print(max(most, anonymous_bytes()) - before)
"""
"""The most anonymous memory that opening, two epochs of batches and the fingerprint took, in a process of its own."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_stays_flat_on_data_four_times_as_large_as_it_may_use(tmp_path, make_episode, action_spec) -> None:
    limit = 24 << 20
    spec = ObservationSpec(cameras={"wrist": (192, 256, 3)}, proprio_names=("x",), proprio_units=("m",), control_hz=10.0)
    path = tmp_path / "large.hdf5"
    images = np.zeros((17, 192, 256, 3), np.uint8)
    with HDF5Writer(path, action_spec, spec) as writer:
        for i in range(41):
            images[:, i] = i
            writer.append(make_episode(16, i, observation_spec=spec, images={"wrist": images.copy()}))
    assert 41 * images.nbytes >= 4 * limit

    def growth(cache: str, *view: str) -> int:
        command = [sys.executable, "-c", GROWTH, str(path), cache, str(limit), *view]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    built, opened, held = growth("auto"), growth("auto"), growth("never")
    assert max(built, opened) < limit
    assert max(growth("auto", "view"), growth("auto", "view")) < limit
    assert held > 4 * limit, "the measure sees what is held in memory"

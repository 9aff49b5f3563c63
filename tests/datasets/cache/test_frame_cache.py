"""A cache gives what memory gives, or it is not used."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ObservationSpec
from qtransformer_datasets import EpisodeDataset, HDF5Writer, open_episodes
from qtransformer_datasets.cache import frame_cache
from tests.datasets.cache.caches import SHAPE, is_mapped, same_data


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

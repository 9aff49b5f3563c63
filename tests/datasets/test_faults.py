"""Rows 16 to 38 of the fault matrix that concern HDF5, Minari and checkpoints: where each has its test.

Bags and LeRobot have their own; the tests below are of rows that belong to no other file.
"""

import fcntl
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer.types import ActionSpec
from qtransformer_datasets import EpisodeDataset, HDF5Episodes, inspect_dataset, open_episodes, verify
from qtransformer_datasets.episodes import hdf5_guard as guard
from qtransformer_datasets.episodes.check import check_same_specs
from qtransformer_datasets.episodes.readable import ReadableEpisodes
from tests.episodes import OBSERVATION_SPEC

TESTS = Path(__file__).parents[1]
MATRIX = {
    "16 truncated, empty, not HDF5, LFS pointer": (
        "datasets/robomimic/test_robomimic_hostile.py::test_not_an_hdf5_file",
        "datasets/robomimic/test_robomimic_hostile.py::test_a_truncated_file_says_so",
        "datasets/curation/test_verify.py::test_all_that_is_wrong_with_an_episode_is_told",
    ),
    "17 a bad chunk inside one demo": (
        "datasets/robomimic/test_robomimic_hostile.py::test_a_flipped_bit_in_an_image_is_found",
        "datasets/test_faults.py::test_bad_episodes_are_skipped_on_request_and_counted",
    ),
    "18 a writer is killed": ("datasets/robomimic/test_robomimic_writer.py::test_kill_9_loses_at_most_the_demo_being_written",),
    "19 a file that another process writes": ("datasets/test_faults.py::test_a_file_being_written_is_waited_for_then_named",),
    "23 a camera is missing, extra, renamed, in another order": (
        "datasets/test_faults.py::test_cameras_are_matched_by_name_and_both_sides_listed",
        "core/test_policy.py::test_wrong_observations_are_refused_with_both_sides_named",
        "core/test_policy.py::test_extra_cameras_are_no_obstacle",
    ),
    "24 actions or rate differ from the checkpoint's": (
        "core/test_trainer_fine_tuning.py::test_data_that_do_not_fit_the_checkpoint_are_refused_with_both_sides_listed",
        "datasets/test_episode_dataset.py::test_specs_must_agree",
    ),
    "25 actions outside [-1, 1]": (
        "datasets/robomimic/test_robomimic_reader.py::test_bad_values_name_file_and_episode",
        "datasets/test_faults.py::test_actions_beyond_the_limits_are_clipped_on_request_and_counted",
        "datasets/test_minari_reader.py::test_actions_beyond_the_space_are_refused_or_clipped",
    ),
    "26 bounds, NaN, a constant dimension": (
        "core/test_action_tokenizer.py::test_the_bounds_fall_into_the_outermost_bins",
        "core/test_action_tokenizer.py::test_nan_and_infinity_raise",
        "datasets/test_faults.py::test_a_constant_dimension_is_no_obstacle",
    ),
    "27 lengths differ, short episodes, unclear ends": (
        "datasets/robomimic/test_robomimic_reader.py::test_bad_values_name_file_and_episode",
        "datasets/robomimic/test_robomimic_endings.py::test_the_meaning_of_dones_is_never_guessed",
        "datasets/test_minari_reader.py::test_bad_episodes_are_named",
        "datasets/test_minari_reader.py::test_termination_and_truncation_are_kept_apart",
    ),
    "28 images of another type or order": (
        "datasets/robomimic/test_robomimic_reader.py::test_a_first_demo_with_other_channels_is_refused",
        "datasets/robomimic/test_robomimic_reader.py::test_bad_values_name_file_and_episode",
    ),
    "29 timestamps that do not increase, or jump": (
        "datasets/robomimic/test_robomimic_writer.py::test_times_of_observations_come_back",
        "datasets/test_faults.py::test_a_hole_in_the_times_of_an_episode_is_refused_and_told",
    ),
    "32, 33 pickles in place of weights": (
        "core/test_checkpoint.py::test_a_pickle_in_place_of_the_weights_is_not_run",
        "core/test_checkpoint.py::test_no_file_is_a_pickle",
    ),
    "34 a config that names code": ("core/test_checkpoint.py::test_a_hostile_config_builds_nothing",),
    "35 links, external storage, virtual datasets": (
        "datasets/robomimic/test_robomimic_hostile.py::test_other_files_are_not_read",
        "datasets/robomimic/test_robomimic_hostile.py::test_links_in_the_middle_of_a_path_are_not_followed",
        "datasets/test_minari_reader.py::test_links_are_not_followed",
        "datasets/test_faults.py::test_a_mask_is_guarded_like_everything_else",
    ),
    "36 bombs": (
        "datasets/robomimic/test_robomimic_hostile.py::test_shape_bombs_are_refused_before_allocation",
        "datasets/robomimic/test_robomimic_hostile.py::test_a_false_length_is_refused_before_allocation",
        "datasets/robomimic/test_robomimic_hostile.py::test_damaged_attributes_are_one_clear_error",
        "datasets/test_faults.py::test_a_decompression_bomb_is_refused_before_allocation",
        "datasets/test_faults.py::test_a_huge_attribute_is_refused_before_it_is_read",
    ),
    "37 paths that leave the dataset": ("datasets/test_faults.py::test_names_in_a_file_are_never_paths",),
    "38 interpolation in a config": ("cli/test_train.py::test_interpolations_in_a_config_are_not_resolved",),
    "a heap that hangs libhdf5": (
        "datasets/curation/test_verify.py::test_a_hang_inside_libhdf5_is_one_problem_and_the_next_file_is_read",
    ),
    "byte flips and truncations everywhere": ("fuzz/test_fuzz.py::test_damage_is_refused_or_harmless",),
}


@pytest.mark.parametrize("row", MATRIX)
def test_every_row_has_its_tests(row: str) -> None:
    for test in MATRIX[row]:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), test


def test_bad_episodes_are_skipped_on_request_and_counted(write_file, make_episode, assert_same_episode) -> None:
    path = write_file([make_episode(3 + seed, seed) for seed in range(4)])
    with h5py.File(path) as file:
        places = [file[f"data/demo_{i}/obs/wrist_image"].id.get_chunk_info(0).byte_offset for i in (0, 2)]
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match="demo_0: damaged"):
        EpisodeDataset(open_episodes(path))
    with pytest.warns(UserWarning, match=r"skipped 2 of 4 episodes; the first: .*demo_0: damaged"):
        source = open_episodes(path, on_bad_episode="skip")
    assert EpisodeDataset(source).lengths == source.lengths == [4, 6]
    assert sorted(source.skipped) == [0, 2]
    assert_same_episode(source.read(1), make_episode(6, 3))


def test_what_was_read_to_check_it_is_decoded_once(write_file, make_episode, monkeypatch) -> None:
    path = write_file([make_episode(3 + seed, seed) for seed in range(3)])
    source, expected = open_episodes(path, on_bad_episode="skip"), EpisodeDataset(path).fingerprint
    with monkeypatch.context() as patched:
        patched.setattr("qtransformer_datasets.robomimic.reader.HDF5Episodes._load", lambda *_: pytest.fail("decoded again"))
        assert EpisodeDataset(source).fingerprint == expected
    assert EpisodeDataset(source).fingerprint == expected  # handed over, it is not kept a second time


def test_no_more_is_kept_of_the_check_than_there_is_room_for(write_file, make_episode) -> None:
    reader = open_episodes(write_file([make_episode(3, seed) for seed in range(3)]))
    source = ReadableEpisodes(reader, keep_bytes=2 * make_episode(3).images["wrist"].nbytes)
    again = list[int]()
    read, reader.read = reader.read, lambda index: again.append(index) or read(index)
    assert len(list(source)) == 3
    assert again == [2]


def test_skipping_everything_is_an_error(tmp_path, write_foreign, foreign_demo) -> None:
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2) | {"rewards": np.full(2, np.nan)}])
    with pytest.raises(DatasetError, match=r"found none of 1.*rewards"):
        open_episodes(path, on_bad_episode="skip", dones="terminated")


def test_a_file_being_written_is_waited_for_then_named(write_file, make_episode, monkeypatch) -> None:
    path = write_file([make_episode(3)])
    monkeypatch.setattr(guard, "LOCK_PATIENCE", 0.3)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(DatasetError, match=r"demo\.hdf5: .*locked by a process that writes it"):
            HDF5Episodes(path)
        assert time.monotonic() - began >= 0.3
        monkeypatch.setattr(guard, "LOCK_PATIENCE", 30.0)
        threading.Timer(0.3, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        assert HDF5Episodes(path).lengths == [3]


def test_cameras_are_matched_by_name_and_both_sides_listed(tmp_path, write_foreign, foreign_demo) -> None:
    demos = [foreign_demo(3, i) for i in range(3)]
    images = demos[1].pop("obs/agentview_image")
    demos[1]["obs/frontview_image"] = images
    demos[2] = {"obs/aaa_image": images * 0} | demos[2]  # another camera, first in order
    source = HDF5Episodes(write_foreign(tmp_path / "f.hdf5", demos), dones="terminated")
    with pytest.raises(DatasetError, match=r"demo_1: expected 'agentview_image' in .*found .*'frontview_image'"):
        source.read(1)
    assert np.array_equal(source.read(2).images["agentview"][:-1], demos[2]["obs/agentview_image"])


def test_actions_beyond_the_limits_are_clipped_on_request_and_counted(tmp_path, write_foreign, foreign_demo) -> None:
    actions = np.array([[0.0, 0.5], [-7.0, -1.5], [0.5, 1.25], [0.25, 1.0]])
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4) | {"actions": actions}, foreign_demo(4, 1)])
    with pytest.raises(DatasetError, match=r"'a0' in 25\.0 % .*from -7 to 0\.5, .*'a1' in 50\.0 % .*clip_actions:true"):
        HDF5Episodes(path, dones="terminated").read(0)
    clipped, untouched = HDF5Episodes(path, dones="terminated", clip_actions=True)
    assert clipped.actions.tolist() == [[0.0, 0.5], [-1.0, -1.0], [0.5, 1.0], [0.25, 1.0]]
    assert clipped.info["clipped_actions"] == {"a0": 0.25, "a1": 0.5}
    assert "clipped_actions" not in untouched.info


def test_nan_is_not_clipped_away(tmp_path, write_foreign, foreign_demo) -> None:
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(2) | {"actions": np.array([[np.nan, 2.0], [0, 0]])}])
    with pytest.raises(DatasetError, match=r"actions expected finite"):
        HDF5Episodes(path, dones="terminated", clip_actions=True).read(0)


def test_a_constant_dimension_is_no_obstacle(make_source, make_episode) -> None:
    stats = EpisodeDataset(make_source([make_episode(3, actions=np.zeros((3, 2), np.float32))])).stats
    assert stats.action_min.tolist() == stats.action_max.tolist() == [0.0, 0.0]


def test_a_hole_in_the_times_of_an_episode_is_refused_and_told(write_file, make_episode) -> None:
    """60 s within an episode at 10 Hz: what the arm did meanwhile is in no frame."""
    path = write_file([make_episode(6, seed, timestamps=np.arange(7) / 10) for seed in range(2)])
    with h5py.File(path, "r+") as file:
        file["data/demo_1/timestamps"][3:] += 60.0
    expected = r"demo_1: timestamps expected about 0\.1 s apart, found 60\.1 s between rows 2 and 3: .*split the episode there"
    with pytest.raises(DatasetError, match=expected):
        EpisodeDataset(path)
    [problem] = verify(path).problems
    assert re.search(expected, problem)
    assert problem in inspect_dataset(path)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([0.1, 0.1, 0.45, 0.1, 0.1, 0.1], id="frames dropped"),
        pytest.param([0.1, 1e-6, 1e-6, 1e-6, 0.4, 1e-6], id="samples seen again, a microsecond apart"),
        pytest.param([2.0, 2.1, 1.9, 2.0, 2.0, 9.0], id="slower than its rate of control"),
        pytest.param([0.3], id="one step"),
    ],
)
def test_times_that_are_merely_uneven_are_read(write_file, make_episode, steps) -> None:
    times = np.cumsum([1e9, *steps])
    path = write_file([make_episode(len(steps), timestamps=times)])
    assert verify(path).problems == []
    assert EpisodeDataset(path).frames().timestamps.tolist() == times.tolist()


@pytest.mark.parametrize(
    ("key", "lengths"),
    [("train", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]), ("valid", [10]), ("long", [9, 10, 11]), (None, [*range(1, 12)])],
)
def test_masks_choose_demos_in_the_order_of_the_file(write_file, make_episode, key, lengths) -> None:
    path = write_file([make_episode(1 + seed, seed) for seed in range(11)])
    with h5py.File(path, "r+") as file:
        file["mask"].create_dataset("long", data=["demo_10", "demo_8", "demo_9", "demo_9"], dtype=h5py.string_dtype())
    source = HDF5Episodes(path, filter_key=key)
    assert source.lengths == [len(episode) for episode in source] == lengths


def test_a_mask_that_is_not_there_is_answered_with_those_that_are(
    tmp_path, write_file, write_foreign, foreign_demo, make_episode
) -> None:
    path = write_file([make_episode()])
    with pytest.raises(ConfigError, match=r"one of \['train', 'valid'\], found 'test'"):
        HDF5Episodes(path, filter_key="test")
    with pytest.raises(DatasetError, match="mask 'valid' expected names of demos of this file, found none"):
        HDF5Episodes(path, filter_key="valid")
    with pytest.raises(ConfigError, match=r"one of \[\], found 'train'"):
        HDF5Episodes(write_foreign(tmp_path / "f.hdf5", [foreign_demo()]), dones="terminated", filter_key="train")


def test_a_mask_is_guarded_like_everything_else(tmp_path, write_file, make_episode) -> None:
    path = write_file([make_episode()])
    with h5py.File(path, "r+") as file:
        file["mask/numbers"] = np.arange(3)
        file["mask/stranger"] = np.array([b"demo_7"])
        file["mask/elsewhere"] = h5py.ExternalLink(str(path), "/mask/train")
        file["mask"].create_dataset("bomb", (2**40,), "S8", chunks=(1,))
    cases = {"numbers": "row of strings", "stranger": r"\['demo_7'\], which are not there", "elsewhere": "Link", "bomb": "declares"}
    for key, message in cases.items():
        with pytest.raises(DatasetError, match=message):
            HDF5Episodes(path, filter_key=key)


def test_a_decompression_bomb_is_refused_before_allocation(tmp_path, write_foreign, foreign_demo) -> None:
    """One packed chunk of zeros in a file that says it holds 2**18 of them."""
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["agentview_image"]
        filters = {"chunks": (64, 256, 256, 3), "compression": "gzip", "compression_opts": 9, "shuffle": True}
        bomb = obs.create_dataset("agentview_image", (2**24, 256, 256, 3), np.uint8, **filters)
        bomb[:64] = 0
        assert bomb.nbytes > 3e12
    with pytest.raises(DatasetError, match=r"declares .* but stores"):
        HDF5Episodes(path, dones="terminated")


def test_a_huge_attribute_is_refused_before_it_is_read(write_file, make_episode) -> None:
    path = write_file([make_episode()])
    with h5py.File(path, "r+", libver="latest") as file:
        del file["data"].attrs["attributes"]
        file["data"].attrs.create("attributes", np.bytes_(b"x" * 10**8))
    with pytest.raises(DatasetError, match="'attributes' expected at most 4194304 bytes"):
        HDF5Episodes(path)


def test_names_in_a_file_are_never_paths(tmp_path, write_foreign, foreign_demo) -> None:
    """A key is one component: a camera called ../x is looked for under just that name, or not at all."""
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path) as file, guard.hdf5_errors("f"):
        for name in ("../demo_0", "/data", "obs/../actions", "obs/agentview_image"):
            assert not guard.has_child(file["data/demo_0"], name)
            with pytest.raises(DatasetError, match="expected"):
                guard.child(file["data/demo_0"], name, "f")


def test_unlike_limits_of_many_actions_are_told_in_one_line() -> None:
    names = tuple(f"joint_{i}" for i in range(14))
    one, other = (
        ActionSpec(names, (-1 / 3 - shift,) * 14, (1 / 3 + shift,) * 14, ("rad",) * 14, (0,) * 14) for shift in (0.0, 1e-3)
    )
    with pytest.raises(SpecMismatchError) as caught:
        check_same_specs((one, OBSERVATION_SPEC), (other, OBSERVATION_SPEC), "b.hdf5")
    told = str(caught.value)
    assert "ActionSpec.low differs: 14 of 14, the first at 0: expected -0.333333, found -0.334333" in told
    assert len(told) < 300
    near = replace(one, low=(-1 / 3 - 1e-12, *one.low[1:]))
    with pytest.raises(SpecMismatchError, match=r"1 of 14, the first at 0: expected -0\.333333333333333\d, found"):
        check_same_specs((one, OBSERVATION_SPEC), (near, OBSERVATION_SPEC), "b.hdf5")

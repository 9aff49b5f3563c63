"""Files that are damaged, or mean harm: they are refused before anything is allocated or another file is read."""

import contextlib
import struct

import h5py
import numpy as np
import pytest

from qtransformer.errors import DatasetError, QTransformerError
from qtransformer_datasets import EpisodeDataset, HDF5Episodes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git lfs pull"),
        (b"PK\x03\x04 a zip archive", "something else"),
        (None, "nothing"),
    ],
)
def test_not_an_hdf5_file(tmp_path, content, message):
    path = tmp_path / "x.hdf5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"x.hdf5: .*{message}"):
        HDF5Episodes(path)
    with pytest.raises(DatasetError, match="folder"):
        HDF5Episodes(tmp_path)


def test_a_truncated_file_says_so(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(3)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"truncated.*again"):
        HDF5Episodes(path)


def test_a_flipped_bit_in_an_image_is_found(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(2)])
    with h5py.File(path) as file:
        offset = file["data/demo_1/obs/wrist_image"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 40] ^= 1
    path.write_bytes(raw)
    source = HDF5Episodes(path)
    source.read(0)
    with pytest.raises(DatasetError, match="demo_1: damaged"):
        source.read(1)


def test_random_damage_raises_only_our_errors(write_file, make_episode):
    path = write_file([make_episode(seed=seed) for seed in range(2)])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), 3):
            raw[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with contextlib.suppress(QTransformerError):
            EpisodeDataset(path)


SENTINEL = 77


@pytest.fixture
def secret(tmp_path):
    """A file that must not be read through another."""
    path = tmp_path / "secret.hdf5"
    with h5py.File(path, "w") as file:
        file["images"] = np.full((4, 6, 8, 3), SENTINEL, np.uint8)
        file["data/demo_0/obs/agentview_image"] = np.full((4, 6, 8, 3), SENTINEL, np.uint8)
    (tmp_path / "secret.raw").write_bytes(bytes([SENTINEL]) * (4 * 6 * 8 * 3))
    return path


def _external_link(obs, secret):
    obs["agentview_image"] = h5py.ExternalLink(str(secret), "/images")


def _soft_link_through_external(obs, secret):
    obs.file["door"] = h5py.ExternalLink(str(secret), "/")
    obs["agentview_image"] = h5py.SoftLink("/door/images")


def _external_storage(obs, secret):
    raw = str(secret.with_suffix(".raw"))
    obs.create_dataset("agentview_image", (4, 6, 8, 3), np.uint8, external=[(raw, 0, 4 * 6 * 8 * 3)])


def _virtual(obs, secret):
    layout = h5py.VirtualLayout((4, 6, 8, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "images", (4, 6, 8, 3))
    obs.create_virtual_dataset("agentview_image", layout)


@pytest.mark.parametrize("trick", [_external_link, _soft_link_through_external, _external_storage, _virtual])
def test_other_files_are_not_read(tmp_path, write_foreign, foreign_demo, secret, trick):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo(4, 0), foreign_demo(4, 1)])
    with h5py.File(path, "r+") as file:
        for name in ("demo_0", "demo_1"):
            del file[f"data/{name}/obs/agentview_image"]
        trick(file["data/demo_0/obs"], secret)
        assert (file["data/demo_0/obs/agentview_image"][()] == SENTINEL).all()  # the trick works on a careless reader
    with pytest.raises(DatasetError, match=r"agentview_image.*(Link|another file)"):
        HDF5Episodes(path, dones="terminated")


@pytest.mark.parametrize("place", ["data", "data/demo_0", "data/demo_0/obs"])
def test_links_in_the_middle_of_a_path_are_not_followed(tmp_path, write_foreign, foreign_demo, secret, place):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink(str(secret), "/" + place)
    with pytest.raises(DatasetError, match="ExternalLink"):
        HDF5Episodes(path, dones="terminated").read(0)


@pytest.mark.parametrize("chunks", [None, (1, 6, 8, 3), (2**18, 64, 64, 3)])
def test_shape_bombs_are_refused_before_allocation(tmp_path, write_foreign, foreign_demo, chunks):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["agentview_image"]
        shape = (2**40, 6, 8, 3) if chunks is None or chunks[0] == 1 else (2**20, 64, 64, 3)
        obs.create_dataset("agentview_image", shape, np.uint8, chunks=chunks)
    with pytest.raises(DatasetError, match=r"declares .* bytes"):
        HDF5Episodes(path, dones="terminated")


def test_a_chunk_far_larger_than_its_array_is_refused(tmp_path, write_foreign, foreign_demo):
    path = write_foreign(tmp_path / "f.hdf5", [foreign_demo()])
    with h5py.File(path, "r+") as file:
        obs = file["data/demo_0/obs"]
        del obs["agentview_image"]
        sizes = {"shape": (4, 6, 8, 3), "maxshape": (None, 6, 8, 3), "chunks": (2**21, 6, 8, 3)}
        obs.create_dataset("agentview_image", dtype=np.uint8, **sizes)
    with pytest.raises(DatasetError, match="in chunks of 301989888"):
        HDF5Episodes(path, dones="terminated")


def test_a_forged_storage_size_is_refused(tmp_path, write_foreign, foreign_demo):
    """Shape and stored size agree with each other, but not with the file; recent HDF5 finds that out before we do."""
    path, rows = write_foreign(tmp_path / "f.hdf5", [foreign_demo(5)]), 2**40
    raw = path.read_bytes()
    for numbers, forged in [((5, 6, 8, 3), (rows, 6, 8, 3)), ((5 * 144,), (rows * 144,))]:
        old, new = (struct.pack(f"<{len(n)}Q", *n) for n in (numbers, forged))
        assert old in raw
        raw = raw.replace(old, new)
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=r"declares|damaged"):
        HDF5Episodes(path, dones="terminated")


def test_a_false_length_is_refused_before_allocation(write_file, make_episode):
    path = write_file([make_episode()])
    with h5py.File(path, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = 2**50
    with pytest.raises(DatasetError, match="more than a file of"):
        EpisodeDataset(path)
    with h5py.File(path, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = 5
    with pytest.raises(DatasetError, match="num_samples says 5 steps, actions has 4"):
        EpisodeDataset(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action_spec", "{"),
        ("action_spec", "[]"),
        ("action_spec", '{"names": ["x"]}'),
        ("observation_spec", "[" * 100_000),
        ("observation_spec", '{"cameras": {"../x": [1, 2]}, "proprio_names": [], "proprio_units": [], "control_hz": 1}'),
        ("attributes", 3.0),
        ("attributes", "x" * (1 << 23)),
    ],
)
def test_damaged_attributes_are_one_clear_error(write_file, make_episode, name, value):
    path = write_file([make_episode()])
    with h5py.File(path, "r+") as file:
        file["data"].attrs[name] = value
    with pytest.raises(QTransformerError, match=r"demo\.hdf5"):
        HDF5Episodes(path)

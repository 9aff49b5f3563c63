"""`data validate`: every problem of all that is given, and outliving what hangs a library."""

import json
from pathlib import Path

import h5py
import numpy as np

from tests.cli.console import qtransformer, write_dataset


def test_validate_lists_all_of_all_and_fails(tmp_path: Path) -> None:
    good, bad = write_dataset(tmp_path / "good.hdf5"), write_dataset(tmp_path / "sub.hdf5")
    with h5py.File(bad, "r+") as file:
        file["data/demo_1/actions"][0, 0] = 2
        file["data/demo_5/rewards"][0] = np.nan
    (tmp_path / "torn.hdf5").write_bytes(good.read_bytes()[:5000])
    result = qtransformer("data", "validate", str(tmp_path), f"{tmp_path}/none.hdf5", f"json={tmp_path}/v.json")
    assert result.code == 1
    assert f"good  {good}: 8 episodes, 48 steps" in result.out
    for word in (
        "demo_1: actions",
        "demo_5: rewards",
        "torn.hdf5: the file is truncated",
        "none.hdf5: expected an HDF5 file, found nothing",
    ):
        assert word in result.out
    assert "4 datasets, 14 readable episodes, 84 steps: 4 problems in 3 datasets" in result.out
    assert [len(v["problems"]) for v in json.loads((tmp_path / "v.json").read_text())] == [0, 2, 1, 1]


def test_validate_outlives_a_file_that_hangs_its_library(run, dataset: Path, tmp_path: Path) -> None:
    """A blank object on the heap of strings is followed by itself, for ever: libhdf5 never returns."""
    hangs = tmp_path / "a_hangs.hdf5"
    with h5py.File(hangs, "w") as file:
        file.create_group("data/demo_0").attrs["num_samples"] = 1
        file["data"].attrs["env_args"] = "{}"
    raw = bytearray(hangs.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + 16 : heap + 32] = bytes(16)
    hangs.write_bytes(raw)
    (tmp_path / "b.hdf5").write_bytes(dataset.read_bytes())
    code, out, _ = run("validate", str(tmp_path), "timeout=2")
    assert code == 1
    assert f"{hangs}: its reader hung and was stopped while it was opened; restore the file from its source" in out
    assert f"good  {tmp_path}/b.hdf5: 8 episodes, 48 steps" in out


def test_validate_refuses_an_option_that_nobody_has(run, dataset: Path) -> None:
    code, _, err = run("validate", str(dataset), "done=terminated")
    assert code == 1
    assert "did you mean dones?" in err


def test_validate_of_good_data_exits_with_0(run, dataset: Path) -> None:
    code, out, _ = run("validate", str(dataset), str(dataset))
    assert code == 0
    assert out.endswith("2 datasets, 16 readable episodes, 96 steps: no problems\n")

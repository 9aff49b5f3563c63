"""robomimic's own SequenceDataset on files of ours, in the environment of `make peers`."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROBOMIMIC = ROOT / ".venv-robomimic" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC.exists(), reason="robomimic is not installed: make peers")
@pytest.mark.parametrize("key", [None, "train", "valid"])
def test_its_samples_are_ours(write_file, make_episode, key: str | None) -> None:
    path = write_file([make_episode(1 + i, i, end="truncated" if i % 3 else "terminated") for i in range(11)])
    steps = {None: 66, "train": 56, "valid": 10}[key]
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets"))
    command = [str(ROBOMIMIC), str(ROOT / "benchmarks" / "robomimic_parity.py"), str(path)]
    command += ["--filter-key", key] if key else []
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert f"{steps} samples of" in done.stdout, done.stdout + done.stderr

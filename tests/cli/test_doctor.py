"""The doctor names what killed processes left behind, and is content with a machine that runs these tests."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qtransformer.cli import doctor
from qtransformer.cli.main import main
from qtransformer.run_guard import exclusive


def test_this_machine_is_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"path={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert all(package in out for package in doctor.NEEDED)
    assert "usable" in out.splitlines()[-1]


def test_leftovers_are_named_with_their_remedy(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "killed"
    run.mkdir(parents=True)
    (run / "run.lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    (tmp_path / "data" / "low.hdf5.partial").mkdir(parents=True)
    findings = list(doctor.leftovers(tmp_path))
    assert "left by a process that is gone" in findings[0].state
    assert f"qtransformer resume run={run}" in findings[0].remedy
    with exclusive(run):
        assert "in use" in next(iter(doctor.leftovers(tmp_path))).state
    assert "go on" in findings[1].remedy


def test_a_package_that_does_not_import_is_fatal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(doctor.NEEDED, "torch", "no_such_module")
    assert main(["doctor"]) == 1
    assert "import no_such_module` fails" in capsys.readouterr().out


def test_the_doctor_itself_needs_none_of_what_it_looks_for() -> None:
    words = "import sys, qtransformer.cli.doctor; sys.exit(str({'h5py', 'cv2', 'av', 'matplotlib', 'pybullet'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"

"""`qtransformer doctor`: what this machine can do, and what to mend."""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from qtransformer.cli import ros_doctor
from qtransformer.cli.findings import Finding
from qtransformer.cli.settings import DoctorSettings
from qtransformer.parallel import default_workers
from qtransformer.run_guard import is_held

NEEDED = {
    "torch": "torch",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "jaxtyping": "jaxtyping",
    "hydra-core": "hydra",
    "tensorboard": "torch.utils.tensorboard",
    "h5py": "h5py",
    "opencv-python-headless": "cv2",
    "matplotlib": "matplotlib",
    "av": "av",
}
"""Distribution to the module that must be importable."""
SIMULATOR = {"pybullet": "pybullet", "gymnasium": "gymnasium"}
LITTLE_DISK = 2e9
LITTLE_SHARED_MEMORY = 64e6


def run(settings: DoctorSettings) -> int:
    folder = Path(settings.path)
    findings = [*machine(), *packages(), *video(), *places(folder), *leftovers(folder), *ros_doctor.ros()]
    findings += ros_doctor.graph(Path(settings.contract)) if settings.contract else []
    for finding in findings:
        mark = "FAIL" if finding.fatal else "note" if finding.remedy else "ok"
        print(f"{mark:5}{finding.name:24}{finding.state}")
    remedies = [finding for finding in findings if finding.remedy]
    for finding in remedies:
        print(f"\n{finding.name}: {finding.remedy}")
    fatal = any(finding.fatal for finding in findings)
    print("\n" + ("not usable yet" if fatal else "usable" if not remedies else "usable, with the notes above"))
    return int(fatal)


def machine() -> Iterator[Finding]:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if supported else "the project is tested on Python 3.10, 3.11 and 3.12",
    )
    yield Finding("cores", f"{default_workers()} usable, PyTorch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Finding("cuda", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    elif Path("/proc/driver/nvidia").exists():
        remedy = "there is an NVIDIA driver, but PyTorch cannot use it: install the CUDA build of torch"
        yield Finding("cuda", f"not usable by torch {torch.__version__}", remedy)
    else:
        yield Finding("cuda", "no device; trainings run on the CPU")


def packages() -> Iterator[Finding]:
    for distribution, module in NEEDED.items():
        yield _package(distribution, module, "make .venv, or pip install -c constraints.txt -e .", fatal=True)
    remedy = "pip install -c constraints.txt -e '.[sim]' on Python 3.10 or 3.11: PyBullet has wheels for those only"
    for distribution, module in SIMULATOR.items():
        yield _package(distribution, module, f"no simulator: {remedy}", fatal=False)


def video() -> Iterator[Finding]:
    """Videos need no ffmpeg program: PyAV carries its libraries."""
    try:
        codecs = importlib.import_module("av").codecs_available
    except ImportError:
        return
    found = [name for name in ("libx264", "h264", "libvpx-vp9", "mpeg4") if name in codecs]
    yield Finding("video codecs", ", ".join(found) or "none", "" if found else "reinstall av: pip install --force-reinstall av")


def places(folder: Path) -> Iterator[Finding]:
    disk = shutil.disk_usage(folder)
    remedy = "free some space: checkpoints and datasets need gigabytes" if disk.free < LITTLE_DISK else ""
    yield Finding("disk", f"{disk.free / 1e9:.1f} GB free in {folder.absolute()}", remedy)
    if not os.access(folder, os.W_OK):
        yield Finding("folder", f"{folder.absolute()} is not writable", "choose another folder, or fix its permissions", fatal=True)
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free
        remedy = "in a container, start it with --shm-size=1g" if free < LITTLE_SHARED_MEMORY else ""
        yield Finding("shared memory", f"{free / 1e6:.0f} MB free", remedy)


def leftovers(folder: Path) -> Iterator[Finding]:
    """What killed processes left behind."""
    for lock in sorted((folder / "runs").rglob("run.lock")):
        state = "in use" if is_held(lock) else "left by a process that is gone"
        remedy = "" if state == "in use" else f"`qtransformer resume run={lock.parent}` takes it over"
        yield Finding("lock", f"{lock} ({state})", remedy)
    for partial in sorted((folder / "data").glob("*.partial")):
        yield Finding("unfinished collection", str(partial), "repeat its `collect` command to go on, or delete the folder")
    for temporary in sorted((folder / "runs").rglob("*.tmp-*")):
        yield Finding("unfinished file", str(temporary), "delete it unless a training is running")


def _package(distribution: str, module: str, remedy: str, fatal: bool) -> Finding:
    try:
        number = version(distribution)
    except PackageNotFoundError:
        return Finding(distribution, "not installed", remedy, fatal)
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken wheel may raise nearly anything
        return Finding(distribution, f"{number}, but `import {module}` fails: {error}", remedy, fatal)
    return Finding(distribution, number)

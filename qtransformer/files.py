"""Directories that appear whole or not at all, and say what they contain.

A directory is written beside its place under a temporary name, every file is synced, a manifest of sizes and SHA-256 sums comes
last, and a rename publishes it. Readers check the manifest before they parse anything.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qtransformer.errors import CheckpointError, StorageError

MANIFEST = "manifest.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that free space would cure."""


@contextmanager
def published_directory(destination: Path) -> Iterator[Path]:
    """A temporary directory to fill, which becomes `destination` if the block ends well and vanishes if it does not.

    Raises:
        StorageError: the disk is full or not writable; what existed before is untouched.
    """
    temporary = destination.with_name(f"{destination.name}.tmp-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        sync(temporary)
        if destination.exists():
            shutil.rmtree(destination)
        os.replace(temporary, destination)
        sync_entry(destination.parent)
    except Exception as error:
        written = sum(f.stat().st_size for f in temporary.rglob("*") if f.is_file())
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise StorageError(_explain(error, destination, written)) from error
        raise


def _explain(error: Exception, destination: Path, written: int) -> str:
    """Of a checkpoint that could not be written: what is left, and how training goes on."""
    reason, remedy = _reason(error)
    free = shutil.disk_usage(destination.parent if destination.parent.exists() else "/").free
    return (
        f"cannot write {destination}: {reason} after {written / 1e6:.1f} MB ({free / 1e6:.0f} MB free on that disk); "
        f"earlier checkpoints are untouched; {remedy}, then `qtransformer resume`"
    )


def _reason(error: Exception) -> tuple[str, str]:
    """Why something could not be written, and what mends it."""
    if is_disk_full(error):
        return "the disk is full or a file-size limit was reached", "free some space"
    return getattr(error, "strerror", None) or str(error), "check the folder and its permissions"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a write that found no room is among the causes. h5py and safetensors hide the number in their text."""
    texts = [os.strerror(number) for number in DISK_FULL]
    while error is not None:
        if getattr(error, "errno", None) in DISK_FULL or any(text in str(error) for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explained_storage_errors(path: Path) -> Iterator[None]:
    """A block that writes `path`: its OSError becomes a StorageError that names the path, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        reason, remedy = _reason(error)
        raise StorageError(f"cannot write {path}: {reason}; {remedy}") from error


def write_manifest(directory: Path) -> None:
    """Record size and SHA-256 of the files directly in `directory`; the last file to be written."""
    entries = {
        f.name: {"size": f.stat().st_size, "sha256": _sha256(f)}
        for f in sorted(directory.iterdir())
        if f.is_file() and f.name != MANIFEST
    }
    (directory / MANIFEST).write_text(json.dumps(entries, indent=1))


def verify_manifest(directory: Path, required: Collection[str] = ()) -> None:
    """Check every file against the manifest, which must list those that are `required`: what it leaves out, it does not vouch for.

    Raises:
        CheckpointError: the directory is incomplete or altered; names the file.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        entries = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{directory} has no readable {MANIFEST}: it is no complete checkpoint") from error
    unlisted = [name for name in required if name not in entries]
    if unlisted:
        raise CheckpointError(f"{directory}: its manifest does not list {', '.join(unlisted)}; copy the whole directory again")
    present = {path.name for path in directory.iterdir() if path.is_file()}
    for name, (size, sha256) in entries.items():
        path = directory / name
        if name not in present:
            raise CheckpointError(f"{directory}: '{name}' of the manifest is missing; copy the whole directory again")
        if path.stat().st_size != size or _sha256(path) != sha256:
            raise CheckpointError(f"{path} differs from its manifest (damaged or altered); copy it again or use another step")


def fingerprint(directory: Path) -> str:
    """SHA-256 of the manifest, which names the size and SHA-256 of every file: one number for all of a verified directory."""
    return _sha256(directory / MANIFEST)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(data, indent=1))


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically.

    Raises:
        StorageError: the disk is full or not writable; what existed before is untouched.
    """
    with explained_storage_errors(path), replaced_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` if the block ends well and vanishes if it does not."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        sync_entry(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Bytes on disk before the name points at them: a rename alone survives a kill, not a power cut. Folders with all they hold."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
    sync_entry(path)


def sync_entry(path: Path) -> None:
    """The same of a file alone, or of a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

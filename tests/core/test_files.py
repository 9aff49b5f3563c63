import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtransformer.errors import CheckpointError, StorageError
from qtransformer.files import is_disk_full, published_directory, replaced_file, verify_manifest, write_json, write_manifest


def test_a_directory_appears_whole_and_leaves_nothing_temporary(tmp_path: Path) -> None:
    with published_directory(tmp_path / "deep" / "step") as directory:
        (directory / "a.txt").write_text("a")
        assert not (tmp_path / "deep" / "step").exists()
    assert (tmp_path / "deep" / "step" / "a.txt").read_text() == "a"
    assert os.listdir(tmp_path / "deep") == ["step"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there_before(tmp_path: Path, error: BaseException) -> None:
    with published_directory(tmp_path / "step") as directory:
        (directory / "a.txt").write_text("old")
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), published_directory(tmp_path / "step") as directory:  # noqa: PT012
        (directory / "a.txt").write_text("new")
        raise error
    assert (tmp_path / "step" / "a.txt").read_text() == "old"
    if isinstance(error, Exception):
        assert os.listdir(tmp_path) == ["step"]


def test_a_full_disk_is_explained_with_path_and_remedy(tmp_path: Path) -> None:
    words = r"step.*full.*MB free.*earlier checkpoints are untouched.*resume"
    with pytest.raises(StorageError, match=words), published_directory(tmp_path / "step"):
        raise OSError(28, "No space left on device")


def test_what_may_not_be_written_is_told_from_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"y\.json: Not a directory; check the folder and its permissions$"):
        write_json(tmp_path / "file" / "y.json", {})
    with (
        pytest.raises(StorageError, match=r"Permission denied.*untouched; check the folder and its permissions, then"),
        published_directory(tmp_path / "step"),
    ):
        raise PermissionError(13, "Permission denied")


def test_a_file_that_finds_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"a\.json: the disk is full or .*; free some space$"):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_by_its_number_by_its_text_and_behind_another_error(number: int) -> None:
    full = OSError(number, os.strerror(number))
    behind = ValueError("the writer failed")
    behind.__cause__ = full
    assert all(map(is_disk_full, [full, RuntimeError(f"h5py: {os.strerror(number)}"), behind]))
    assert not is_disk_full(PermissionError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(ValueError("a bug"))


def test_a_directory_replaces_an_older_one_of_its_name(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with published_directory(tmp_path / "step") as directory:
            (directory / f"{text}.txt").write_text(text)
    assert os.listdir(tmp_path / "step") == ["new.txt"]


def filled(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "weights").write_bytes(bytes(range(200)))
    (directory / "config.json").write_text('{"a": 1}')
    write_manifest(directory)
    return directory


def test_an_untouched_directory_passes_its_manifest(tmp_path: Path) -> None:
    verify_manifest(filled(tmp_path / "x"))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["weights", "config.json", "manifest.json"]), st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_byte_is_found_or_harmless_and_only_a_checkpoint_error_escapes(tmp_path, name, place, flip) -> None:
    directory = filled(tmp_path / "x")
    before = json.loads((directory / "manifest.json").read_text())
    data = bytearray((directory / name).read_bytes())
    data[place % len(data)] ^= flip
    (directory / name).write_bytes(data)
    try:
        verify_manifest(directory)
    except CheckpointError as error:
        assert str(directory) in str(error)  # noqa: PT017
    else:
        assert name == "manifest.json", f"{name} was altered unnoticed"
        assert json.loads((directory / name).read_text()) == before, "only white space may differ"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["weights", "config.json", "manifest.json"]), st.floats(0, 0.999))
def test_any_cut_file_is_found(tmp_path, name, share) -> None:
    directory = filled(tmp_path / "x")
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=rf"{name}.*(manifest|complete checkpoint)"):
        verify_manifest(directory)


def test_a_manifest_must_list_what_is_required(tmp_path: Path) -> None:
    """One that lists nothing would vouch for everything."""
    directory = filled(tmp_path / "x")
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not list weights; copy"):
        verify_manifest(directory, ["weights"])


@pytest.mark.parametrize("manifest", ["[]", "3", "null", '{"weights": 7}', '{"weights": {"size": 200}}', '{"../x": {}}', "\udcff"])
def test_a_manifest_of_another_shape_is_a_checkpoint_error(tmp_path: Path, manifest: str) -> None:
    directory = filled(tmp_path / "x")
    (directory / "manifest.json").write_bytes(manifest.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"no readable manifest\.json|'\.\./x' of the manifest is missing"):
        verify_manifest(directory)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    directory = filled(tmp_path / "x")
    (directory / "weights").unlink()
    with pytest.raises(CheckpointError, match="'weights'"):
        verify_manifest(directory)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replaced_file(path) as fresh:  # noqa: PT012
        fresh.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert os.listdir(tmp_path) == ["a.json"]

"""`data convert`: the copy, and what is said of it before it is written."""

from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from qtransformer.types import Episode
from qtransformer_datasets import formats, open_episodes
from qtransformer_datasets.robomimic import writer as robomimic_writer
from tests.cli.console import OBSERVATION, kill_hard, qtransformer, start, wait_until, write_dataset


def test_convert_keeps_every_number(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.hdf5"
    code, told, _ = run("convert", f"in={dataset}", f"out={out}")
    assert code == 0
    assert "everything is the same" in told
    assert open_episodes(out).attributes["derived"]["from"] == [{"name": "tiny.hdf5"}]
    code, _, err = run("convert", f"in={dataset}", f"out={out}")
    assert code == 1
    assert "expected a free path" in err


def test_convert_with_other_cameras_and_smaller_images(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.hdf5"
    assert run("convert", str(dataset), f"out={out}", "cameras={hand:wrist}", "image_size=8")[0] == 0
    assert dict(open_episodes(out).observation_spec.cameras) == {"hand": (8, 8, 3)}


def test_a_bad_episode_is_not_converted(run, tmp_path: Path) -> None:
    bad = write_dataset(tmp_path / "bad.hdf5")
    with h5py.File(bad, "r+") as file:
        file["data/demo_1/actions"][0, 0] = 2
    code, _, err = run("convert", str(bad), f"out={tmp_path}/a.hdf5")
    assert code == 1
    assert "demo_1" in err
    assert not (tmp_path / "a.hdf5").exists()


def test_a_dry_run_converts_nothing(run, dataset: Path, tmp_path: Path) -> None:
    code, told, _ = run("convert", str(dataset), f"out={tmp_path}/x", "dry_run=true")
    assert code == 0
    assert f"8 episodes of {dataset} to {tmp_path}/x (robomimic)" in told
    assert not list(tmp_path.iterdir())


def test_what_a_format_loses_is_said_first_and_what_it_hides_is_an_error(
    run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(action_spec, observation_spec, **options):
        return {"images": "stored as video"}

    class Lossy(robomimic_writer.HDF5Writer):
        def append(self, episode: Episode) -> None:
            super().append(replace(episode, images={name: rows ^ 1 for name, rows in episode.images.items()}))

    monkeypatch.setattr(robomimic_writer, "losses", losses, raising=False)
    monkeypatch.setattr(robomimic_writer, "Lossy", Lossy, raising=False)
    [kind] = [f for f in formats.FORMATS if f.name == "robomimic"]
    lossy = replace(kind, writer="robomimic.writer:Lossy")
    monkeypatch.setattr(formats, "FORMATS", (replace(lossy, losses="robomimic.writer:losses"),))
    code, told, _ = run("convert", str(dataset), f"out={tmp_path}/a.hdf5")
    assert code == 0
    assert told.index("lost: images: stored as video") < told.index("PSNR 48.1 dB, worst episode 48.1 dB")
    monkeypatch.setattr(formats, "FORMATS", (lossy,))
    code, _, err = run("convert", str(dataset), f"out={tmp_path}/b.hdf5")
    assert code == 1
    assert "it differs from what was written (images: camera wrist)" in err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["format=lerobot", "out.image=av1"], "lerobot has no option 'out.image'; did you mean out.images?"),
        (["format=lerobot", "out.images=video"], "out.images expected png, av1 or h264, found video"),
        (["format=robomimic", "out.images=png"], "robomimic has no option 'out.images'; there are: none"),
        (["format=minari"], "minari can be read but not written; choose one of robomimic, lerobot"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_said(
    run, dataset: Path, tmp_path: Path, words: list[str], answer: str
) -> None:
    code, told, err = run("convert", str(dataset), f"out={tmp_path}/x", "dry_run=true", *words)
    assert (code, told) == (1, "")
    assert answer in err


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    big = write_dataset(tmp_path / "big.hdf5", replace(OBSERVATION, cameras={"wrist": (256, 256, 3)}))
    out = tmp_path / "out.hdf5"
    process = start("data", "convert", f"in={big}", f"out={out}")
    wait_until(lambda: len(list(tmp_path.glob("out.hdf5.partial/demo_*.hdf5"))) >= 2, process)
    kill_hard(process)
    assert not out.exists(), "killed after its end: nothing was tested"
    result = qtransformer("data", "convert", f"in={big}", f"out={out}")
    assert result.code == 0, result.err
    assert "going on after" in result.out
    assert "everything is the same" in result.out

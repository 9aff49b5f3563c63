"""Collections that are killed, repeated, spread over workers, and out of room."""

from pathlib import Path

import h5py
import pytest

from qtransformer.cli.main import main
from tests.cli.console import kill_hard, qtransformer, start, wait_until

pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")

SMALL = ["image_size=32", "max_steps=10", "num_objects=2", "recipe=full"]


def content(path: Path) -> dict[str, object]:
    """Everything in a file: arrays by their bytes, attributes by their text."""
    found: dict[str, object] = {}

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        found[name] = {key: str(value) for key, value in node.attrs.items()}
        if isinstance(node, h5py.Dataset):
            found[f"{name} data"] = (node.shape, str(node.dtype), node[()].tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes from one process."""
    out = tmp_path_factory.mktemp("collect") / "one.hdf5"
    result = qtransformer("collect", f"out={out}", "episodes=12", "workers=1", *SMALL)
    assert result.code == 0, result.err
    assert "12 episodes" in result.out
    return out


def test_workers_do_not_matter(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.hdf5"
    assert qtransformer("collect", f"out={out}", "episodes=12", "workers=2", *SMALL, prefix="TQDM_DISABLE=1").code == 0
    assert content(out) == content(collected), "nor does a progress bar"


def test_killed_and_repeated_gives_the_same_file(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed.hdf5"
    arguments = ["collect", f"out={out}", "episodes=12", "workers=2", *SMALL]
    process = start(*arguments)
    wait_until(lambda: len(list(tmp_path.glob("killed.hdf5.partial/demo_*.hdf5"))) >= 3, process)
    kill_hard(process)
    assert not out.exists(), "killed after its end: nothing was tested"
    result = qtransformer(*arguments)
    assert result.code == 0, result.err
    assert content(out) == content(collected)


def test_what_is_complete_is_not_collected_again(collected: Path) -> None:
    before = collected.stat()
    result = qtransformer("collect", f"out={collected}", "episodes=12", *SMALL)
    assert (result.code, collected.stat().st_mtime_ns) == (0, before.st_mtime_ns)
    assert "complete already" in result.out


def test_other_settings_are_refused(collected: Path) -> None:
    result = qtransformer("collect", f"out={collected}", "episodes=12", "seed=1", *SMALL)
    assert result.code == 1
    assert "seed: there 0, asked for 1" in result.error


def test_a_full_disk_loses_nothing(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "full.hdf5"
    arguments = ["collect", f"out={out}", "episodes=12", "workers=1", *SMALL]
    limit = collected.stat().st_size // 1024 // 2  # episodes fit, the whole file does not
    result = qtransformer(*arguments, prefix=f"ulimit -f {limit};")
    assert result.code == 1
    assert "disk is full" in result.error
    assert not out.exists()
    assert len(list(tmp_path.glob("full.hdf5.partial/demo_*.hdf5"))) == 12
    assert qtransformer(*arguments).code == 0
    assert content(out) == content(collected)


def test_no_room_for_an_episode_either(tmp_path: Path) -> None:
    out = tmp_path / "none.hdf5"
    result = qtransformer("collect", f"out={out}", "episodes=2", "workers=1", *SMALL, prefix="ulimit -f 4;")
    assert result.code == 1
    assert "disk is full" in result.error
    assert not out.exists()


@pytest.mark.parametrize(
    ("override", "answer"),
    [("recipe=ful", "did you mean full?"), ("cameras=[wrst]", "did you mean wrist?"), ("arm=kuku", "did you mean kuka?"),
     ("episodes=0", "expected 1 to"), ("seed=-1", "expected 0 to"),
     ("control_hz=0", "expected 0.1 to"), ("control_hz=nan", "expected 0.1 to"), ("max_steps=0", "expected 1 to"),
     ("workers=-1", "expected 0 to")],
)  # fmt: skip
def test_unknown_names_are_answered(override: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", f"out={tmp_path}/x.hdf5", override]) == 2
    assert answer in capsys.readouterr().err


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", f"out={tmp_path}/x.hdf5", "episodes=5", "dry_run=true"]) == 0
    assert "would collect 5 episodes" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_inspect_shows_the_file(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(collected)]) == 0
    assert "episodes      12" in capsys.readouterr().out
    assert main(["data", "inspect", f"{collected}x"]) == 1

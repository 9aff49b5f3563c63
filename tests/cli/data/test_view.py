"""`data view`: a page with films, or Rerun."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qtransformer.cli.data.view import send_episode
from qtransformer_datasets import open_episodes


def test_view_writes_one_page_with_its_films(run, dataset: Path, tmp_path: Path) -> None:
    code, told, _ = run("view", str(dataset), f"out={tmp_path}/v.html", "episodes=2")
    assert code == 0
    page = (tmp_path / "v.html").read_text()
    assert f"{tmp_path}/v.html: " in told
    assert page.count("data:video/mp4;base64,") == 2
    assert 'id="episode-0"' in page
    assert 'id="episode-7"' in page
    assert "2 of 8 episodes are shown" in page


def test_view_of_chosen_episodes(run, dataset: Path, tmp_path: Path) -> None:
    assert run("view", str(dataset), f"out={tmp_path}/v.html", "only=[3]")[0] == 0
    assert 'id="episode-3"' in (tmp_path / "v.html").read_text()
    code, _, err = run("view", str(dataset), f"out={tmp_path}/w.html", "only=[8]")
    assert code == 2
    assert "0 to 7" in err


def test_rerun_is_asked_for_only_where_it_is_wanted(run, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    code, _, err = run("view", str(dataset), "rerun=true")
    assert code == 1
    assert "pip install rerun-sdk" in err


def test_rerun_gets_every_step(dataset: Path) -> None:
    class Recording:
        def __init__(self) -> None:
            self.logged: list[tuple[int, str, Any]] = []
            self.step = -1

        def set_time(self, name: str, sequence: int) -> None:
            self.step = sequence

        def log(self, path: str, value: Any, static: bool = False) -> None:
            self.logged.append((self.step, path, value))

    recording, same = Recording(), lambda value: value
    episodes = open_episodes(dataset)
    send_episode(SimpleNamespace(TextDocument=same, Image=same, Scalars=same), recording, episodes, 1)
    dx = [value for _, path, value in recording.logged if path == "action/dx"]
    assert dx == pytest.approx(0.05 * episodes.read(1).actions[:, 0], rel=1e-5)
    assert [step for step, path, _ in recording.logged if path == "cameras/wrist"] == list(range(7))
    assert (-1, "episode", "failure: ") in [entry for entry in recording.logged if entry[1] == "episode"]

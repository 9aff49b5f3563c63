import json
from pathlib import Path

import av
import numpy as np
import pytest

from qtransformer.config import Algo, ValueKind
from qtransformer.report import film
from qtransformer.report.frame import HEIGHT, WIDTH

from .conftest import STEPS, CountingEnv, Still, make_policy

HELD = 6
"""Frames of the outcome, 1.2 s at 5 Hz."""


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_a_film_plays_everywhere(env: CountingEnv, tmp_path: Path) -> None:
    entries = film(env, make_policy(), [4, 5], tmp_path / "videos", "Q-Transformer <new>")
    assert entries == [
        {"file": "q-transformer-new_4.mp4", "seed": 4, "success": True, "steps": STEPS, "label": "Q-Transformer <new>"},
        {"file": "q-transformer-new_5.mp4", "seed": 5, "success": False, "steps": STEPS, "label": "Q-Transformer <new>"},
    ]
    assert json.loads((tmp_path / "videos" / "videos.json").read_text()) == entries
    for entry in entries:
        path = tmp_path / "videos" / entry["file"]
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height, stream.average_rate) == (WIDTH, HEIGHT, 5)
        pictures = frames(path)
        assert len(pictures) == STEPS + HELD
        assert np.abs(pictures[-1].astype(int) - pictures[0]).mean() > 1
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # playable before it is loaded whole


def test_the_outcome_has_its_colour(env: CountingEnv, tmp_path: Path) -> None:
    film(env, Still(), [2, 3], tmp_path, "still")
    good, bad = (frames(tmp_path / f"still_{seed}.mp4")[-1][320, 24].astype(int) for seed in (2, 3))
    assert good[1] > good[0] + 60
    assert bad[0] > bad[1] + 60


def test_distributions_are_those_of_a_success(env: CountingEnv, tmp_path: Path) -> None:
    film(env, make_policy(), [1, 2, 3], tmp_path, "ours")
    with np.load(tmp_path / "value_distributions.npz") as file:
        assert (int(file["seed"]), bool(file["success"]), str(file["label"])) == (2, True, "ours")
        assert file["probs"].shape == (STEPS, 21)
        np.testing.assert_allclose(file["probs"] @ file["locations"], file["values"], atol=1e-5)


@pytest.mark.parametrize("actor", [Still(), make_policy(algo=Algo.bc)])
def test_actors_without_values_are_filmed_without_them(env: CountingEnv, tmp_path: Path, actor: Still) -> None:
    film(env, actor, [1], tmp_path, "still")
    assert len(frames(tmp_path / "still_1.mp4")) == STEPS + HELD
    assert not (tmp_path / "value_distributions.npz").exists()


def test_a_scalar_head_is_filmed_without_a_distribution(env: CountingEnv, tmp_path: Path) -> None:
    film(env, make_policy(ValueKind.mse), [1], tmp_path, "mse")
    assert len(frames(tmp_path / "mse_1.mp4")) == STEPS + HELD
    assert not (tmp_path / "value_distributions.npz").exists()


def test_an_environment_that_renders_is_seen(tmp_path: Path) -> None:
    class Rendering(CountingEnv):
        def render(self, size: tuple[int, int] = (8, 8)) -> np.ndarray:
            return np.full((*size, 3), (250, 20, 200), np.uint8)

    film(Rendering(), Still(), [0], tmp_path, "seen")
    assert np.abs(frames(tmp_path / "seen_0.mp4")[0][150, 200].astype(int) - (250, 20, 200)).max() < 30


def test_films_of_several_actors_are_listed_together(env: CountingEnv, tmp_path: Path) -> None:
    film(env, Still(), [1, 2], tmp_path, "one")
    film(env, Still(), [1], tmp_path, "two")
    film(env, Still(), [2], tmp_path, "one")
    (tmp_path / "two_1.mp4").unlink()
    film(env, Still(), [3], tmp_path, "one")
    assert [e["file"] for e in json.loads((tmp_path / "videos.json").read_text())] == ["one_1.mp4", "one_2.mp4", "one_3.mp4"]


def test_a_film_that_breaks_leaves_nothing_behind(env: CountingEnv, tmp_path: Path) -> None:
    class Broken(Still):
        def act(self, observation: object) -> np.ndarray:
            if env.steps == 2:
                raise RuntimeError("stop")
            return super().act(observation)

    with pytest.raises(RuntimeError, match="stop"):
        film(env, Broken(), [1], tmp_path, "broken")
    assert list(tmp_path.iterdir()) == []

from time import perf_counter

import numpy as np
import pytest

from qtransformer.policy import PolicyDecision
from qtransformer.report.frame import CHOSEN, FORBIDDEN, HEIGHT, RIGHT_X, WIDTH, Frame, ValueScale, draw
from qtransformer.types import ActionSpec


def make_frame(n: int, a: int, cameras: int = 1, **changes: object) -> tuple[Frame, ActionSpec, ValueScale]:
    rng = np.random.default_rng(0)
    spec = ActionSpec(
        names=tuple(f"dimension {i}" for i in range(n)), low=(-1.0,) * n, high=(1.0,) * n, units=("m",) * n, discrete=(0,) * n
    )
    decision = PolicyDecision(
        action=np.zeros(n, np.float32),
        bins=np.full(n, 1),
        q_values=rng.uniform(0.4, 0.6, (n, a)).astype(np.float32),
        allowed=np.arange(a) < np.full((n, 1), a - 1),
        value_probs=rng.dirichlet(np.ones(51), n).astype(np.float32),
    )
    images = {f"camera {i}": rng.integers(0, 256, (64, 64, 3), np.uint8) for i in range(cameras)}
    settings: dict = {
        "label": "a very long label " * 5,
        "instruction": "put the thing into the other thing " * 8,
        "seed": 123456789,
        "step": 1000,
        "scene": rng.integers(0, 256, (240, 320, 3), np.uint8),
        "images": images,
        "action": decision.action,
        "decision": decision,
        "values": rng.uniform(0, 1, 100).tolist(),
    }
    return Frame(**settings | changes), spec, ValueScale(0.0, 1.0, np.linspace(-0.1, 1.1, 51), (a,) * n)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("n", "a"), [(1, 2), (6, 16), (7, 256), (40, 3)])
@pytest.mark.parametrize("cameras", [0, 1, 4])
def test_any_number_of_dimensions_bins_and_cameras_is_drawn(n: int, a: int, cameras: int) -> None:
    for changes in ({}, {"decision": None}, {"scene": None}, {"outcome": "failure after 3 steps"}):
        pixels = draw(*make_frame(n, a, cameras, **changes))
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert pixels.dtype == np.uint8


def test_the_chosen_bin_stands_out_and_masked_bins_are_grey() -> None:
    pixels = draw(*make_frame(4, 4))
    columns = pixels[100:390, RIGHT_X + 122 :]
    chosen = np.where((columns == CHOSEN).all(-1).any(0))[0]
    masked = np.where((columns == FORBIDDEN).all(-1).any(0))[0]
    assert (chosen.min(), chosen.max()) == (46, 89)  # the second slot of 46 pixels, less a gap of 2
    assert (masked.min(), masked.max()) == (138, 181)  # the fourth


def test_drawing_is_fast() -> None:
    frame = make_frame(6, 16)
    seconds = []
    for _ in range(8):
        start = perf_counter()
        draw(*frame)
        seconds.append(perf_counter() - start)
    assert min(seconds) < 0.03

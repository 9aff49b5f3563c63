"""One environment serves a whole module: reset() must suffice to start afresh."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    from qtransformer_sim import make_env

    env = make_env()
    yield env
    env.close()


@pytest.fixture(scope="module", params=["kuka", "panda"])
def each_arm(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The same environment around every arm in turn, for what must hold of all of them."""
    from qtransformer_sim import make_env

    env = make_env(arm=request.param)
    yield env
    env.close()


@pytest.fixture
def act() -> Any:
    """Spell an action by its parts: `act(dz=-0.07, gripper=1)`."""

    def build(**parts: float) -> np.ndarray:
        names = ("dx", "dy", "dz", "dyaw", "gripper", "terminate")
        assert set(parts) <= set(names)
        return np.array([parts.get(name, 0.0) for name in names], np.float32)

    return build

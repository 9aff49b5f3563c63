from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qtransformer import ActionSpec, ObservationSpec
from qtransformer.errors import SpecMismatchError

SPEC = ActionSpec(("dx", "grip"), (-0.05, 0.0), (0.15, 1.0), ("m", "1"), (0, 2))


def test_limits_scale_to_minus_one_and_one() -> None:
    np.testing.assert_allclose(SPEC.to_scaled(np.array([[-0.05, 0.0], [0.15, 1.0], [0.05, 0.5]])), [[-1, -1], [1, 1], [0, 0]])


@given(hnp.arrays(np.float32, (5, 2), elements=st.floats(-1, 1, width=32)))
def test_units_and_back_is_the_same(scaled: np.ndarray) -> None:
    np.testing.assert_allclose(SPEC.to_scaled(SPEC.to_units(scaled)), scaled, atol=1e-6)


def test_specs_survive_their_dictionaries(observation_spec: ObservationSpec) -> None:
    assert ActionSpec.from_dict(SPEC.to_dict()) == SPEC
    assert ObservationSpec.from_dict(observation_spec.to_dict()) == observation_spec


@pytest.mark.parametrize(
    "change", [{"low": (0.2, 0.0)}, {"high": (np.inf, 1.0)}, {"low": (np.nan, 0.0)}, {"units": ("m",)}, {"names": ()}]
)
def test_limits_without_meaning_are_refused(change: dict) -> None:
    with pytest.raises(SpecMismatchError):
        replace(SPEC, **change)

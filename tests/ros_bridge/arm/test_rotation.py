import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer_ros.arm.rotation import from_vector, inverse, multiply, rotate, to_vector

vectors = st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3).map(np.array)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    turn = from_vector(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(turn, [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(rotate(turn, np.array([1.0, 0, 0])), [0, 1, 0], atol=1e-12)


@given(vectors)
def test_vectors_and_quaternions_are_the_same_rotation(vector) -> None:
    np.testing.assert_allclose(to_vector(from_vector(vector)), vector, atol=1e-9)
    np.testing.assert_allclose(to_vector(-from_vector(vector)), vector, atol=1e-9)


@given(vectors, vectors, vectors)
def test_products_turn_one_after_the_other(a, b, vector) -> None:
    first, second = from_vector(b), from_vector(a)
    np.testing.assert_allclose(rotate(multiply(second, first), vector), rotate(second, rotate(first, vector)), atol=1e-9)
    np.testing.assert_allclose(multiply(inverse(first), first), [0, 0, 0, 1], atol=1e-12)


def test_almost_nothing_is_a_rotation_too() -> None:
    assert to_vector(np.array([1e-12, 0, 0, 1.0]))[0] == pytest.approx(2e-12)

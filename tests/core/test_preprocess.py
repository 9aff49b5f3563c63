import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.preprocess import (
    INSTRUCTION_DIM,
    encode_instruction,
    images_to_float,
)


def test_pixels_become_numbers_between_minus_one_and_one() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 3)
    torch.testing.assert_close(images_to_float(images), torch.tensor([-1.0, 1.0, -0.6]).view(3, 1, 1))
    assert images_to_float(torch.zeros(4, 5, 6, 7, 3, dtype=torch.uint8)).shape == (4, 5, 3, 6, 7)


def test_scaling_leaves_the_uint8_images_as_they_were() -> None:
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    before = images.clone()
    images_to_float(images)
    assert torch.equal(images, before)


@given(st.text(max_size=60))
def test_instructions_have_length_one_and_the_empty_one_is_zero(text: str) -> None:
    features = encode_instruction(text)
    assert features.shape == (INSTRUCTION_DIM,)
    assert features.dtype == np.float32
    length = float(np.linalg.norm(features))
    assert abs(length - 1) < 1e-5 or not features.any()
    np.testing.assert_array_equal(features, encode_instruction(text))


def test_instructions_are_told_apart_by_words_and_their_order() -> None:
    texts = ["", "pick up the red cube", "pick up the blue cube", "push the red cube", "cube red the up pick"]
    codes = [encode_instruction(t) for t in texts]
    assert not codes[0].any()
    for i, a in enumerate(codes):
        for b in codes[:i]:
            assert not np.array_equal(a, b)


def test_case_and_spacing_of_an_instruction_do_not_matter() -> None:
    np.testing.assert_array_equal(encode_instruction("Pick  UP the cube "), encode_instruction("pick up the cube"))


def test_the_code_of_an_instruction_is_the_same_in_every_process() -> None:
    """CRC-32, not Python's salted hash: a checkpoint must mean the same tomorrow."""
    assert np.flatnonzero(encode_instruction("grasp")).tolist() == [9]

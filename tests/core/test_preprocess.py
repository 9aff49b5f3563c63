import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.preprocess import (
    INSTRUCTION_DIM,
    color_jitter,
    draw_color_jitter,
    encode_instruction,
    images_to_float,
    random_shift,
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


def test_a_shift_is_drawn_once_per_segment_and_moves_whole_pixels() -> None:
    """A picture of coordinates tells by how much it was moved, edges repeated."""
    rows, cols = torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij")
    picture = torch.stack([rows, cols, 0 * rows], -1).to(torch.uint8)
    shifted = random_shift(picture.expand(200, 3, -1, -1, -1), 2, torch.Generator().manual_seed(0)).int()
    draws = shifted[:, :, 4, 3, :2] - torch.tensor([4, 3])
    assert (draws == draws[:, :1]).all(), "frames of one segment moved apart"
    assert {tuple(d) for d in draws[:, 0].tolist()} == {(r, c) for r in range(-2, 3) for c in range(-2, 3)}
    for segment, (r, c) in zip(shifted, draws[:, 0].tolist(), strict=True):
        assert torch.equal(segment[0, ..., 0], (rows + r).clamp(0, 8).int())
        assert torch.equal(segment[0, ..., 1], (cols + c).clamp(0, 6).int())


def test_a_shift_of_zero_is_the_image_itself() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8)
    assert random_shift(images, 0, torch.Generator()) is images


def test_the_same_generator_state_gives_the_same_shift() -> None:
    images = torch.randint(0, 256, (8, 2, 9, 9, 3), dtype=torch.uint8)
    a, b = (random_shift(images, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)


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


def test_colour_jitter_scales_and_shifts_channels_once_per_segment() -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(1, 2, 3, 4, 4).expand(50, -1, -1, -1, -1)
    jittered = color_jitter(images, draw_color_jitter(50, 0.2, torch.Generator().manual_seed(0)))
    for segment in jittered:
        for channel in range(3):
            x, y = images[0, :, channel].flatten(), segment[:, channel].flatten()
            scale = (y[-1] - y[0]) / (x[-1] - x[0])
            offset = y[0] - scale * x[0]
            torch.testing.assert_close(y, scale * x + offset, atol=1e-5, rtol=0)
            assert 0.8 - 1e-4 <= scale <= 1.2 + 1e-4
            assert abs(offset) <= 0.2 + 1e-4
    assert len({round(float(s[0, 0, 0, 0]), 4) for s in jittered}) > 40
    torch.testing.assert_close(color_jitter(images, draw_color_jitter(50, 0.0, torch.Generator())), images, atol=0, rtol=0)

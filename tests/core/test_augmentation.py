import torch

from qtransformer.augmentation import augment, color_jitter, draw_color_jitter, mirror, random_shift
from qtransformer.config import OptimConfig


def test_what_an_update_sees_goes_to_its_device_as_a_whole(make_batch) -> None:
    """Draws of the jitter that stayed behind would be indexed by frames elsewhere."""
    batch, optim = make_batch(size=3), OptimConfig(color_jitter=0.2)
    std = torch.ones(batch.proprio.shape[-1])
    seen = augment(batch, optim, std, [], torch.Generator().manual_seed(0)).to(torch.device("meta"))
    assert seen.jitter.keys() == seen.batch.images.keys()
    assert {x.device.type for x in (*seen.jitter.values(), *seen.batch.images.values(), seen.batch.proprio)} == {"meta"}


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


def test_a_mirror_turns_images_round_and_negates_the_named_actions(make_batch) -> None:
    batch = make_batch()
    flipped = torch.arange(len(batch.rewards)) % 2 == 1
    seen = mirror(batch, flipped, [0, 2])
    for name, images in batch.images.items():
        assert torch.equal(seen.images[name][~flipped], images[~flipped])
        assert torch.equal(seen.images[name][flipped], images[flipped].flip(3))
    signs = torch.where(flipped[:, None], torch.tensor([-1.0, 1.0, -1.0]), torch.ones(3))[:, None]
    assert torch.equal(seen.actions, batch.actions * signs)
    again = mirror(seen, flipped, [0, 2])
    assert torch.equal(again.actions, batch.actions)
    assert all(torch.equal(again.images[name], batch.images[name]) for name in batch.images)

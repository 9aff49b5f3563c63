import pytest
import torch

from qtransformer.config import EncoderKind
from qtransformer.models.vision import FiLM, ImageTokenizer, TokenLearner, position_features
from qtransformer.preprocess import INSTRUCTION_DIM


@pytest.mark.parametrize("kind", list(EncoderKind))
@pytest.mark.parametrize(("h", "w"), [(64, 64), (48, 80), (33, 47)])
def test_images_of_any_size_become_the_same_number_of_tokens(kind: EncoderKind, h: int, w: int) -> None:
    tokens = ImageTokenizer(kind, 8, 24, 5)(torch.randn(2, 3, h, w), torch.randn(2, INSTRUCTION_DIM))
    assert tokens.shape == (2, 5, 24)
    assert torch.isfinite(tokens).all()


@pytest.mark.parametrize("kind", list(EncoderKind))
@torch.no_grad()
def test_an_image_is_encoded_alike_alone_and_among_others(kind: EncoderKind) -> None:
    """No batch statistics: a robot acts on batches of one."""
    torch.manual_seed(0)
    tokenizer, images, text = ImageTokenizer(kind, 8, 24, 5), torch.randn(3, 3, 32, 32), torch.randn(3, INSTRUCTION_DIM)
    torch.testing.assert_close(tokenizer(images, text)[1:2], tokenizer(images[1:2], text[1:2]), atol=1e-5, rtol=0)


def test_film_starts_as_the_identity_and_then_scales_and_shifts_by_channel() -> None:
    film, x = FiLM(4), torch.randn(2, 4, 3, 3)
    text = torch.zeros(2, INSTRUCTION_DIM)
    text[:, 0] = torch.tensor([1.0, -1.0])
    torch.testing.assert_close(film(x, text), x)
    with torch.no_grad():
        film.to_scale_shift.weight[1, 0] = 0.5  # scale of channel 1
        film.to_scale_shift.weight[4 + 2, 0] = 3.0  # shift of channel 2
    y = film(x, text)
    torch.testing.assert_close(y[:, 1], x[:, 1] * torch.tensor([1.5, 0.5])[:, None, None])
    torch.testing.assert_close(y[:, 2], x[:, 2] + torch.tensor([3.0, -3.0])[:, None, None])
    torch.testing.assert_close(y[:, [0, 3]], x[:, [0, 3]])


def test_token_learner_averages_places_under_weights_that_sum_to_one() -> None:
    """A map that is the same everywhere condenses to that value, wherever tokens look."""
    torch.manual_seed(0)
    learner = TokenLearner(6, 6, 3)
    with torch.no_grad():
        learner.position.weight.zero_()
        learner.position.bias.zero_()
        learner.project.weight.copy_(torch.eye(6))
        learner.project.bias.zero_()
    place = torch.randn(2, 6)
    tokens = learner(place[:, :, None, None].expand(-1, -1, 5, 7))
    torch.testing.assert_close(tokens, place[:, None].expand(-1, 3, -1))


def test_positions_run_from_minus_one_to_one_at_any_size() -> None:
    for h, w in ((8, 8), (5, 11)):
        features = position_features(h, w, torch.device("cpu"))
        assert features.shape == (h, w, 10)
        torch.testing.assert_close(features[0, 0, :2], torch.tensor([-1.0, -1.0]))
        torch.testing.assert_close(features[-1, -1, :2], torch.tensor([1.0, 1.0]))

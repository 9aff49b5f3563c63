import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtransformer import C51, MSE, HLGauss, TwoHot
from qtransformer.action_tokenizer import take
from qtransformer.config import Conservative
from qtransformer.losses import behavior_loss, conservative_loss, draw_unseen, masked_mean
from qtransformer.value_heads import ValueHead

EXISTS = torch.tensor([[True, True, True, True], [True, True, False, False]])
BINS = torch.tensor([[1, 0]])
UNSEEN = EXISTS & ~torch.nn.functional.one_hot(BINS, 4).bool()


def logits_of(head: ValueHead, values: torch.Tensor) -> torch.Tensor:
    if isinstance(head, MSE):
        return torch.logit((values - head.v_min) / (head.v_max - head.v_min))[..., None]
    return head.to_probs(values).clamp_min(1e-12).log()


def pushed(kind: Conservative, head: ValueHead, logits: torch.Tensor) -> torch.Tensor:
    values = head.q_values(logits)
    return conservative_loss(kind, head, logits, values, UNSEEN, take(values, BINS))


@pytest.mark.parametrize("head", [HLGauss(0, 1, 101), TwoHot(0, 1, 101), C51(0, 1, 101), MSE(0, 1)], ids=lambda h: type(h).__name__)
def test_conservative_term_is_averaged_over_unseen_bins_alone(head: ValueHead) -> None:
    """Dimension 0 has bins .2 [.9] .4 .6 (data bin in brackets): mean of .5 q^2 over .2 .4 .6 = (.02 + .08 + .18) / 3.
    Dimension 1 has two bins, [.7] .5, and padding: .125."""
    values = torch.tensor([[[0.2, 0.9, 0.4, 0.6], [0.7, 0.5, 0.99, 0.99]]])
    logits = logits_of(head, values)
    loss = pushed(Conservative.squared, head, logits)
    torch.testing.assert_close(loss, torch.tensor([[0.28 / 3, 0.125]]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", [Conservative.squared, Conservative.cross_entropy])
def test_conservative_term_is_blind_to_the_data_bin_and_to_padding(kind: Conservative) -> None:
    head = HLGauss(0, 1)
    logits = torch.randn(1, 2, 4, 51, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pushed(kind, head, logits).sum().backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(-1)[0] > 0
    assert touched.tolist() == [[True, False, True, True], [False, True, False, False]]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-2.0, 0.0)])
def test_conservative_term_rests_at_the_lowest_return_not_at_logit_zero(low: float, high: float) -> None:
    """A logit of 0 is the middle of the range: pulling logits would hold unseen bins up there."""
    head = MSE(low, high)
    lowest, middle = torch.full((1, 2, 4, 1), -40.0), torch.zeros(1, 2, 4, 1)
    at_lowest = pushed(Conservative.squared, head, lowest)
    at_middle = pushed(Conservative.squared, head, middle)
    torch.testing.assert_close(at_lowest, torch.zeros(1, 2))
    torch.testing.assert_close(at_middle, torch.full((1, 2), 0.5 * 0.5**2), msg="in ranges, so that the weight fits any scale")


@pytest.mark.parametrize("head", [HLGauss(0, 1), TwoHot(0, 1), MSE(0, 1)], ids=lambda h: type(h).__name__)
def test_descending_the_conservative_term_brings_unseen_values_to_the_lowest_return(head: ValueHead) -> None:
    logits = torch.zeros(1, 2, 4, head.num_outputs).requires_grad_()  # every value .5
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        pushed(Conservative.squared, head, logits).sum().backward()
        optimizer.step()
    values = head.q_values(logits)[0]
    assert (values[EXISTS & ~torch.nn.functional.one_hot(BINS[0], 4).bool()] < 0.03).all()
    torch.testing.assert_close(values[0, 1], torch.tensor(0.5), atol=1e-3, rtol=0)


def test_cross_entropy_kind_is_the_heads_loss_to_the_lowest_return() -> None:
    head = TwoHot(0, 1, 3)
    logits = torch.zeros(1, 2, 4, 3)
    loss = pushed(Conservative.cross_entropy, head, logits)
    torch.testing.assert_close(loss, torch.full((1, 2), 3.0).log())


def test_logsumexp_kind_is_cqls_softmax_without_padding() -> None:
    head = MSE(0, 1)
    logits = torch.zeros(1, 2, 4, 1)
    loss = pushed(Conservative.logsumexp, head, logits)
    torch.testing.assert_close(loss, torch.tensor([[4.0, 2.0]]).log())


@given(sizes=st.lists(st.integers(2, 300), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_drawn_bins_exist_and_were_not_taken(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_bins = torch.tensor(sizes)
    taken = (torch.rand(7, len(sizes), generator=generator) * num_bins).long()
    drawn = draw_unseen(taken, num_bins, 5, generator)
    assert drawn.shape == (7, len(sizes), 5)
    assert ((drawn >= 0) & (drawn < num_bins[:, None]) & (drawn != taken[..., None])).all()


def test_every_bin_that_was_not_taken_is_drawn_equally_often() -> None:
    """So that the mean over the drawn bins has the mean over all of them as its expectation."""
    taken = torch.tensor([[3, 1]])
    drawn = draw_unseen(taken, torch.tensor([6, 2]), 30_000, torch.Generator().manual_seed(0))[0]
    shares = torch.bincount(drawn[0], minlength=6) / 30_000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2, 0.2, 0.0, 0.2, 0.2]), atol=0.01, rtol=0)
    assert (drawn[1] == 0).all()


def test_behavior_loss_is_the_cross_entropy_over_existing_bins() -> None:
    """Logits 0, log 2, 0, 0: the data bin has 2 of 5 parts; two bins alike: 1 of 2, whatever padding says."""
    logits = torch.tensor([[[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0]]])
    logits[0, 0, 1] = torch.tensor(2.0).log()
    loss = behavior_loss(logits, BINS, EXISTS)
    torch.testing.assert_close(loss, -torch.tensor([[0.4, 0.5]]).log())


def test_padding_gets_no_gradient_from_the_behavior_loss() -> None:
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    behavior_loss(logits, BINS, EXISTS).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0][~EXISTS] == 0).all()


def test_masked_mean_counts_valid_samples_only() -> None:
    values = torch.tensor([[1.0, 3.0], [100.0, 100.0], [5.0, 7.0]])
    assert masked_mean(values, torch.tensor([True, False, True])) == 4.0
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0.0


def test_take_picks_the_entry_of_each_dimensions_bin() -> None:
    values = torch.arange(24.0).view(2, 3, 4)
    bins = torch.tensor([[0, 1, 2], [3, 2, 1]])
    assert take(values, bins).tolist() == [[0, 5, 10], [15, 18, 21]]
    deep = values[..., None] + torch.tensor([0.0, 0.5])
    assert take(deep, bins)[1].tolist() == [[15, 15.5], [18, 18.5], [21, 21.5]]


def test_a_shape_that_would_broadcast_in_silence_is_refused() -> None:
    """Annotations that never run would prove nothing: tests/conftest.py turns them on."""
    with pytest.raises(TypeError, match="valid"):
        masked_mean(torch.ones(4, 3), torch.ones(1, dtype=torch.bool))

import torch

from qtransformer.models.transformer import CausalTransformer


@torch.no_grad()
def test_one_token_at_a_time_with_memory_equals_all_at_once() -> None:
    torch.manual_seed(0)
    transformer, x = CausalTransformer(16, 3, 4, 32), torch.randn(2, 9, 16)
    whole, _ = transformer(x)
    out, past = transformer(x[:, :4])
    past = [memory.for_copies(1, room=5) for memory in past]
    parts = [out]
    for t in range(4, 9):
        out, past = transformer(x[:, t : t + 1], past)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_copies_of_a_memory_go_on_apart() -> None:
    torch.manual_seed(0)
    transformer, begun, ways = CausalTransformer(16, 2, 4, 32), torch.randn(2, 3, 16), torch.randn(6, 2, 16)
    _, past = transformer(begun)
    past = [memory.for_copies(3, room=2) for memory in past]
    parts = []
    for t in range(2):
        out, past = transformer(ways[:, t : t + 1], past)
        parts.append(out)
    whole, _ = transformer(torch.cat([begun.repeat_interleave(3, 0), ways], 1))
    torch.testing.assert_close(torch.cat(parts, 1), whole[:, 3:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_token_sees_a_later_one() -> None:
    torch.manual_seed(0)
    transformer, x = CausalTransformer(16, 2, 2, 16), torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4] = torch.randn(16)
    before, after = transformer(x)[0], transformer(changed)[0]
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=0, rtol=0)
    assert ((after[:, 4:] - before[:, 4:]).abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_memory_of_one_element_of_a_batch_does_not_leak_into_another() -> None:
    torch.manual_seed(0)
    transformer, x = CausalTransformer(8, 2, 2, 16), torch.randn(3, 5, 8)
    torch.testing.assert_close(transformer(x)[0][1:2], transformer(x[1:2])[0], atol=1e-6, rtol=0)

"""The defects of public re-implementations."""

from tests.mutants.defects.mutant import Mutant

PUBLIC = [
    Mutant(
        "1 the reward never enters the target",
        "targets.py",
        "rewards = rewards + torch.where(running, discounts * batch.rewards.gather(1, frame), 0.0)",
        "rewards = rewards + 0.0 * batch.rewards.gather(1, frame)",
        "test_targets.py one_step or several_steps",
    ),
    Mutant(
        "1 the reward never enters the target",
        "targets.py",
        "return torch.cat([within, head.backup(rewards, discounts, next_probs)[:, None]], dim=1)",
        "return torch.cat([within, next_probs[:, None]], dim=1)",
        "test_bellman.py per_dimension_backup and mse",
    ),
    Mutant(
        "2 terminals bootstrap, time limits do not",
        "targets.py",
        "torch.where(ends, 0.0, discount)",
        "discount",
        "test_targets.py termination or cut_at",
    ),
    Mutant(
        "2 terminals bootstrap, time limits do not",
        "targets.py",
        "ends = batch.terminated.gather(1, frame)",
        "ends = (batch.terminated | batch.truncated).gather(1, frame)",
        "test_bellman.py per_dimension_backup and two_hot",
    ),
    Mutant(
        "3 the conservative term pulls logits to 0, values to one half",
        "losses.py",
        "penalty = 0.5 * ((q_values - head.v_min) / head.span).square()",
        "penalty = 0.5 * q_logits.square().mean(-1)",
        "test_losses.py conservative",
    ),
    Mutant(
        "4 greedy decoding is random now and then, or reads bins rolled by one",
        "models/q_transformer.py",
        "bins = scores.masked_fill(~allowed, -torch.inf).argmax(-1)",
        "bins = scores.masked_fill(~allowed, -torch.inf).argmax(-1)\n"
        "            bins = torch.where(torch.rand(bins.shape) < 0.1, torch.zeros_like(bins), bins)",
        "models/test_q_transformer.py greedy",
    ),
    Mutant(
        "4 greedy decoding is random now and then, or reads bins rolled by one",
        "models/q_transformer.py",
        "bins = scores.masked_fill(~allowed, -torch.inf).argmax(-1)",
        "bins = scores.masked_fill(~allowed, -torch.inf).roll(1, -1).argmax(-1)",
        "models/test_q_transformer.py greedy",
    ),
    Mutant(
        "5 a two-bin HL-Gauss that does not keep the mean",
        "value_heads/hl_gauss.py",
        "return cdf.diff(dim=-1) / (cdf[..., -1:] - cdf[..., :1])",
        "unit = (self.clamp(value) - self.v_min) / (self.v_max - self.v_min)\n"
        "        upper = 0.5 * (1 + torch.erf((unit - 0.5) / (0.15 * math.sqrt(2.0))))\n"
        "        probs = torch.zeros_like(cdf[..., 1:])\n"
        "        probs[..., 0], probs[..., -1] = 1 - upper, upper\n"
        "        return probs",
        "value_heads/test_base.py decode_of_encode and hl_gauss",
    ),
    Mutant(
        "6 one Monte-Carlo constant for all samples",
        "learner.py",
        "return batch.of_steps(batch.mc_return)[:, None].expand_as(bins)",
        "return batch.mc_return.max().expand_as(bins)",
        "test_learner.py own_return or frame_by_frame",
    ),
    Mutant(
        "7 256 bins are 255, the upper bound is bin 256, NaN passes",
        "action_tokenizer.py",
        "return torch.minimum(bins.long(), a - 1)",
        "return bins.long()",
        "test_action_tokenizer.py bounds",
    ),
    Mutant(
        "7 256 bins are 255, the upper bound is bin 256, NaN passes",
        "action_tokenizer.py",
        "torch.floor(unit * a)",
        "torch.floor(unit * (a - 1))",
        "test_action_tokenizer.py as_many_bins",
    ),
    Mutant(
        "7 256 bins are 255, the upper bound is bin 256, NaN passes",
        "action_tokenizer.py",
        "if not torch.isfinite(action).all():",
        "if False:",
        "test_action_tokenizer.py nan_and_infinity",
    ),
    Mutant(
        "8 configuration changed while building, shape checks that never run",
        "checkpoint.py",
        "    return QTransformer(\n        config.model,",
        "    config.value.initial = 0.01\n    return QTransformer(\n        config.model,",
        "test_trainer.py configuration_is_not_changed",
    ),
    Mutant(
        "8 configuration changed while building, shape checks that never run",
        "__init__.py",
        "from qtransformer.action_tokenizer import ActionTokenizer",
        'import jaxtyping\n\njaxtyping.config.update("jaxtyping_disable", True)\n'
        "from qtransformer.action_tokenizer import ActionTokenizer",
        "test_losses.py broadcast_in_silence",
    ),
]

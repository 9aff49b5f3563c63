"""Known defects, each a change of one place in the source: those of public re-implementations, and ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    defect: str
    file: str
    """Below qtransformer/."""
    old: str
    new: str
    tests: str
    """Below tests/core/, and what pytest's -k keeps of it."""


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

OURS = [
    Mutant(
        "what is remembered crosses into the next episode",
        "memory.py",
        "known = found >= episode_start",
        "known = found >= 0",
        "test_memory.py by_hand or frame_by_frame",
    ),
    Mutant(
        "the policy forgets within its episode",
        "policy.py",
        "self._recollection = self._after(observation)",
        "pass",
        "test_memory.py acts_on_what_it_remembers",
    ),
    Mutant(
        "the seed reaches no draw of an update",
        "learner.py",
        "return (seed * 0x9E3779B1 + step) & 0xFFFFFFFF",
        "return ((seed << 32) + step) & 0xFFFFFFFF",
        "test_learner.py depends_on_seed_and_step",
    ),
    Mutant(
        "the target network stands still",
        "target_network.py",
        "torch._foreach_lerp_(list(slow), list(fast), rate)",
        "torch._foreach_lerp_(list(slow), list(fast), 0.0)",
        "test_target_network.py follows_by_its_rate",
    ),
    Mutant(
        "the bootstrap reads the frame before",
        "target_network.py",
        "numbered(batch, ahead.frame)",
        "numbered(batch, (ahead.frame - 1).clamp_min(0))",
        "test_learner.py frame_by_frame",
    ),
    Mutant(
        "a learned floor raises known failures",
        "learner.py",
        "floor.masked_fill(~uncertain, -torch.inf)",
        "floor",
        "test_learner.py frame_by_frame",
    ),
    Mutant(
        "dimensions of one action are discounted",
        "targets.py",
        "head.backup(zero, zero + 1, head.activate(best_logits))",
        "head.backup(zero, zero + 0.98, head.activate(best_logits))",
        "test_targets.py by_hand",
    ),
    Mutant(
        "a dimension looks at its own maximum",
        "targets.py",
        "argmax(-1)[:, 1:]",
        "argmax(-1)[:, :-1]",
        "test_targets.py by_hand",
    ),
    Mutant(
        "lost final observations are bootstrapped",
        "targets.py",
        "valid &= ~(running & batch.lost_final.gather(1, frame))",
        "valid = valid",
        "test_targets.py lost",
    ),
    Mutant(
        "HL-Gauss without padding",
        "value_heads/hl_gauss.py",
        "PADDING = 4.0",
        "PADDING = 0.0",
        "value_heads/test_base.py decode_of_encode and hl_gauss",
    ),
    Mutant(
        "Two-Hot with swapped numerators",
        "value_heads/two_hot.py",
        "return (1 - (position - torch.arange(len(locations), device=position.device)).abs()).clamp_min(0)",
        "d = (position - torch.arange(len(locations))).abs(); return d * (d < 1)",
        "value_heads/test_two_hot.py exactly or nearer",
    ),
    Mutant(
        "C51 backs up means",
        "value_heads/c51.py",
        "return (next_probs[..., None] * two_hot(moved, atoms)).sum(-2)",
        "return two_hot((next_probs * moved).sum(-1), atoms)",
        "value_heads/test_c51.py worked_example",
    ),
    Mutant(
        "the conservative term takes the data bin along",
        "learner.py",
        "others = exists & ~nn.functional.one_hot(bins, exists.shape[-1]).bool()",
        "others = exists.expand(*bins.shape, -1)",
        "test_learner.py frame_by_frame",
    ),
    Mutant(
        "the conservative term is a sum",
        "losses.py",
        "return (penalty * unseen).sum(-1) / unseen.sum(-1)",
        "return (penalty * unseen).sum(-1)",
        "test_losses.py conservative",
    ),
    Mutant(
        "drawn bins may be the one that was taken",
        "losses.py",
        "offset = 1 + (torch.rand",
        "offset = 0 + (torch.rand",
        "test_losses.py drawn_bins",
    ),
    Mutant(
        "windows cross into the episode before",
        "models/q_transformer.py",
        "return torch.maximum(frames[..., None] - ages, episode_start[..., None])",
        "return (frames[..., None] - ages).clamp_min(0) + 0 * episode_start[..., None]",
        "models/test_q_transformer.py windows",
    ),
    Mutant(
        "tokens of the last episode are kept",
        "policy.py",
        "self._tokens.clear()",
        "pass",
        "test_policy.py reset",
    ),
    Mutant(
        "the behaviour mask is forgotten when acting",
        "policy.py",
        "return self.network.greedy(context, targets.behavior_mask)",
        "return self.network.greedy(context, 0.0)",
        "test_policy.py twenty_steps",
    ),
    Mutant(
        "the golden sample is not replayed",
        "policy.py",
        "policy.verify_golden(artefact.golden, str(path))",
        "pass",
        "test_checkpoint.py golden",
    ),
    Mutant(
        "settings to act by are not taken up",
        "policy.py",
        "return cls(*made_of, acting) if acting else policy",
        "return policy",
        "test_acting.py last_digit",
    ),
    Mutant(
        "a checkpoint is verified by settings it was not saved with",
        "policy.py",
        "policy = cls(*made_of)",
        "policy = cls(*made_of, acting)",
        "test_acting.py verified",
    ),
    Mutant(
        "proposals are drawn from a classifier that was never learned",
        "acting.py",
        "if config.targets.behavior_mask == 0 and (self.proposals or self.behavior_mask):",
        "if False:",
        "test_acting.py refused",
    ),
    Mutant(
        "manifests are not read",
        "checkpoint.py",
        "    verify_manifest(directory, FILES)\n    config = ",
        "    config = ",
        "test_checkpoint.py under_the_manifest and metadata",
    ),
    Mutant(
        "moments are not restored",
        "optimizer.py",
        "        if entries:\n",
        "        if False:\n",
        "test_learner.py bit_for_bit",
    ),
    Mutant(
        "moments come back in another memory layout",
        "optimizer.py",
        "return torch.empty_like(parameter, requires_grad=False).copy_(value)",
        "return value",
        "test_trainer_resume.py killed_training_resumed",
    ),
    Mutant(
        "updates that are not finite are applied",
        "learner.py",
        "        if metrics.skipped:\n            return\n",
        "",
        "test_learner.py not_finite",
    ),
    Mutant(
        "a mirror leaves actions as they were",
        "augmentation.py",
        "torch.where(flipped, -1.0, 1.0)[:, None, None]",
        "torch.where(flipped, 1.0, 1.0)[:, None, None]",
        "test_augmentation.py mirror",
    ),
    Mutant(
        "proposals leave the behaviour mask",
        "models/q_transformer.py",
        "drawn.append((logits + gumbel).masked_fill(~allowed, -torch.inf).argmax(-1))",
        "drawn.append((logits + gumbel).argmax(-1))",
        "models/test_q_transformer.py proposals",
    ),
    Mutant(
        "the worst proposal is taken",
        "models/q_transformer.py",
        "best = self.value_head.to_value(probs).argmax(-1)",
        "best = self.value_head.to_value(probs).argmin(-1)",
        "models/test_q_transformer.py proposals",
    ),
    Mutant(
        "values are learned while cloning",
        "config.py",
        "return self.algo is Algo.bc or step < self.cloning_steps",
        "return self.algo is Algo.bc",
        "test_trainer.py while_cloning",
    ),
    Mutant(
        "a shift for every frame's own",
        "augmentation.py",
        "out[:, top:bottom, left:end] = source[:, top + down : bottom + down, left + right : end + right]",
        "whole = source[:, top + down : bottom + down, left + right : end + right]\n"
        "        out[:, top:bottom, left:end] = torch.stack([frame.roll(i, 0) for i, frame in enumerate(whole)])",
        "test_augmentation.py once_per_segment",
    ),
    Mutant(
        "range: it grows beyond its limit",
        "value_heads/support.py",
        "max(v_min - more, limits[0]) if down",
        "v_min - more if down",
        "value_heads/test_support.py within_limits or logarithmically",
    ),
    Mutant(
        "range: demonstrations leave no room for failure",
        "value_heads/support.py",
        "min(stats.return_min, stats.reward_min)",
        "stats.return_min",
        "value_heads/test_support.py demonstrations",
    ),
    Mutant(
        "range: claims beyond it are believed",
        "value_heads/support.py",
        "discounts * head.clamp(next_values)",
        "discounts * next_values",
        "value_heads/test_support.py not_believed",
    ),
    Mutant(
        "range: learning starts above the data",
        "value_heads/support.py",
        "max(min(initial, stats.mean_return), support.v_min)",
        "initial",
        "value_heads/test_support.py fresh_network",
    ),
    Mutant(
        "range: the counts start anew when resumed",
        "learner.py",
        'self.growth.seen = state["support.seen"]',
        "pass",
        "test_learner.py wider_range",
    ),
    Mutant(
        "range: the target network still speaks of the old one",
        "learner.py",
        "[(self.network, self.optimizer), (self.target_network, None)]",
        "[(self.network, self.optimizer)]",
        "test_learner.py wider_range",
    ),
    Mutant(
        "range: moments stay on the old one",
        "value_heads/rebinning.py",
        "optimizer.state.get(parameter, {}) if optimizer else {}",
        "{}",
        "test_learner.py wider_range",
    ),
    Mutant(
        "range: the artefact has the one it started with",
        "trainer.py",
        "replace(self._value, v_min=head.v_min, v_max=head.v_max)",
        "self._value",
        "test_trainer_range.py widened_resumes and hl_gauss",
    ),
    Mutant(
        "range: the conservative term weighs by the scale of rewards",
        "losses.py",
        "penalty = 0.5 * ((q_values - head.v_min) / head.span).square()",
        "penalty = 0.5 * (q_values - head.v_min).square()",
        "test_losses.py logit_zero",
    ),
    Mutant(
        "range: what a time limit left out is taken for nothing",
        "learner.py",
        "known = batch if batch.return_bound is None else replace(batch, mc_return=batch.return_bound)",
        "known = batch",
        "test_learner.py time_limit_made",
    ),
]

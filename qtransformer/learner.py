"""QLearner: one optimiser, one target network, one `update`. The mathematics itself is in `targets.py` and `losses.py`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import assert_never

from qtransformer.action_tokenizer import take
from qtransformer.augmentation import Augmented, augment
from qtransformer.batch import Batch
from qtransformer.config import Algo, Backup, Bootstrap, Conservative, Floor, TrainConfig
from qtransformer.frame_encoder import FrameEncoder
from qtransformer.losses import behavior_loss, conservative_loss, draw_unseen, masked_mean
from qtransformer.metrics import Metrics, Stopwatch
from qtransformer.models.q_transformer import QTransformer
from qtransformer.optimizer import learning_rate, make_optimizer, optimizer_state, restore_optimizer
from qtransformer.target_network import Contexts, TargetNetwork
from qtransformer.targets import NStep, backup_from_next_dimension, backup_from_next_state, n_step, raise_to_floor, with_next_action
from qtransformer.value_heads import ValueHead, make_value_head
from qtransformer.value_heads.support import Beyond, Support, SupportGrowth, count_beyond, range_in, state_of

UNSEEN_METRICS_EVERY = 8
"""Where nothing pushes on bins that were not taken, their values are for the log alone: computed in one update of so many."""


class Unseen(NamedTuple):
    """Values of bins beside the logged one."""

    q_logits: Float[Tensor, "k n c v"]
    q_values: Float[Tensor, "k n c"]
    exist: Bool[Tensor, "k n c"]
    """Which of the c bins exist and were not taken."""


class HeadOutputs(NamedTuple):
    """The values that the losses are about: of the logged bin of every dimension, and of bins it is set beside."""

    data_logits: Float[Tensor, "k n v"]
    q_data: Float[Tensor, "k n"]
    unseen: Unseen | None
    """None where this update does not compute them."""


class Targets(NamedTuple):
    """What values are to become."""

    probs: Float[Tensor, "k n v"]
    """Representation of every dimension's target."""
    valid: Bool[Tensor, "k"]
    """Steps that have one."""
    beyond: Beyond | None
    """None where nothing is bootstrapped."""


class HeldOut(NamedTuple):
    """What a network says of logged actions, beside what it would be told of them."""

    bins: Int[Tensor, "k n"]
    q_values: Float[Tensor, "k n"]
    """Of the logged bin of every dimension."""
    log_policy: Float[Tensor, "k n"] | None
    """The behaviour classifier's log-probability of it [nat]; None where none is learned."""
    target: Float[Tensor, "k n"]
    """Expected value of the training target; NaN for `algo=bc`, which has none."""
    valid: Bool[Tensor, "k"]
    """Steps that have a target."""


class QLearner:
    """Learns a Q-Transformer from segments; `algo` chooses Q-learning, Monte-Carlo regression or behaviour cloning.

    Args:
        config: the training's settings.
        network: the network to learn, already on `device`.
        device: where updates run.
        mirrored: action dimensions that change sign in a mirror (`optim.mirror`).
        support: how far the network's range of values may grow; None keeps it as it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: QTransformer,
        device: torch.device,
        mirrored: Sequence[int] = (),
        support: Support | None = None,
    ) -> None:
        self.config, self.network, self.device, self._mirrored = config, network, device, list(mirrored)
        self.growth = SupportGrowth(support) if support and config.algo is Algo.q else None
        self._encoder = FrameEncoder(config.optim.precision, device)
        self._bootstrap = self._make_target_network()
        self.optimizer = make_optimizer(network, config.optim)

    def _make_target_network(self) -> TargetNetwork | None:
        """None where nothing is bootstrapped."""
        match self.config.algo:
            case Algo.q:
                return TargetNetwork(self.network, self.config.targets, self._encoder)
            case Algo.mc | Algo.bc:
                return None
            case unknown:
                assert_never(unknown)

    @cached_property
    def _proprio_std(self) -> Float[Tensor, "p"]:
        """On the CPU, of the network that the first update finds: read at each, it would wait for a GPU to end the one before."""
        return self.network.proprio_std.cpu()

    @property
    def head(self) -> ValueHead:
        return self.network.value_head

    @property
    def target_network(self) -> QTransformer | None:
        return self._bootstrap and self._bootstrap.network

    @property
    def lookahead(self) -> int:
        """Frames after the steps of a segment that targets read."""
        return self.config.targets.time_steps

    @property
    def lead(self) -> int:
        """Frames before the steps of a segment that history windows read."""
        return self.config.model.history - 1

    def update(self, batch: Batch, step: int) -> Metrics:
        """One gradient step on a batch: weights, optimiser, target network and range of values move in place.

        How they move follows from where they are, the settings, batch and `step` alone: draws are seeded by `step`.
        A loss or gradient that is not finite leaves weights and optimiser untouched; `Metrics.skipped` tells.
        """
        watch = Stopwatch(self.device, step)
        metrics = Metrics(watch.seconds)
        generator = torch.Generator().manual_seed(draws_seed(self.config.seed, step))
        with watch.section("data"):
            # Before the transfer: shifting images is hundreds of small copies, each of which would be a kernel on a GPU, and to ask
            # whether actions are finite would wait for it.
            seen = augment(batch, self.config.optim, self._proprio_std, self._mirrored, generator)
            bins, seen = self._logged_bins(seen.batch).to(self.device), seen.to(self.device)
            batch = seen.batch
        with watch.section("forward"):
            hidden = self._hidden(seen, bins)
        targets = None
        if self.config.clones_at(step):
            with watch.section("forward"):
                loss = self._cloning_loss(batch, hidden, bins)
        else:
            with watch.section("forward"):
                outputs = self._logged_and_unseen(hidden, bins, step, generator)
            with watch.section("target"), torch.no_grad():
                targets = self._targets(seen, hidden, bins, metrics, generator)
            with watch.section("forward"):
                loss = self._value_loss(batch, hidden, bins, outputs, targets, metrics)
                self._observe(batch, hidden, outputs, targets, metrics)
        metrics.mean("loss", loss)
        with watch.section("backward"):
            self._descend(loss, step, metrics)
        if self.growth and targets and targets.beyond and not metrics.skipped:
            self.growth.see(targets.beyond)
            self.cover(*self.growth.decide(*self.range, step), batch)
        return metrics

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest return that values can be."""
        return self.head.v_min, self.head.v_max

    @torch.no_grad()
    def cover(self, v_min: float, v_max: float, batch: Batch) -> None:
        """Represent values on another range from here on, all values staying what they are, as far as a batch can tell."""
        if (v_min, v_max) == self.range:
            return
        seen = Augmented(batch.to(self.device), {})
        bins, head = self._logged_bins(seen.batch), self._head_for(v_min, v_max)
        for network, optimizer in [(self.network, self.optimizer), (self.target_network, None)]:
            if network is not None:
                network.rebin(self._hidden(seen, bins, network), head, optimizer)
        self._use(head)

    def _head_for(self, v_min: float, v_max: float) -> ValueHead:
        return make_value_head(replace(self.config.value, v_min=v_min, v_max=v_max))

    def _use(self, head: ValueHead) -> None:
        self.network.value_head = head
        if self.target_network is not None:
            self.target_network.value_head = head

    @torch.no_grad()
    def evaluate_batch(self, batch: Batch) -> HeldOut:
        """Values and targets of a batch as `update` would see them, without augmentation and without learning."""
        seen = Augmented(batch.to(self.device), {})
        bins = self._logged_bins(seen.batch)
        hidden = self._hidden(seen, bins)
        output = self.network.output_heads(hidden)
        log_policy = None
        if self.config.learns_behavior:
            existing = output.policy_logits.masked_fill(~self.network.bin_exists, -torch.inf)
            log_policy = take(existing.log_softmax(-1), bins)
        if self.config.algo is Algo.bc:
            target, valid = torch.full(bins.shape, torch.nan, device=bins.device), torch.zeros_like(bins[:, 0], dtype=torch.bool)
        else:
            told = self._targets(seen, hidden, bins, Metrics({}), torch.Generator().manual_seed(self.config.seed))
            target, valid = self.head.to_value(told.probs), told.valid
        return HeldOut(bins, take(output.q_values, bins), log_policy, target, valid)

    def _logged_bins(self, batch: Batch) -> Int[Tensor, "k n"]:
        return batch.of_steps(self.network.tokenizer.encode(batch.actions))

    def _hidden(self, seen: Augmented, bins: Int[Tensor, "k n"], network: QTransformer | None = None) -> Float[Tensor, "k n e"]:
        network = network or self.network
        return network.hidden(self._encoder.windows_of_steps(network, seen), bins)

    def _logged_and_unseen(
        self, hidden: Float[Tensor, "k n e"], bins: Int[Tensor, "k n"], step: int, generator: torch.Generator
    ) -> HeadOutputs:
        """Values of the logged bins and of those beside which the losses set them."""
        data_logits = self.network.q_head.at(hidden, bins[..., None])[:, :, 0]
        pushed = self.config.targets.conservative_weight > 0
        with torch.set_grad_enabled(pushed):
            unseen = self._unseen(hidden, bins, generator) if pushed or step % UNSEEN_METRICS_EVERY == 0 else None
        return HeadOutputs(data_logits, self.head.q_values(data_logits), unseen)

    def _unseen(self, hidden: Float[Tensor, "k n e"], bins: Int[Tensor, "k n"], generator: torch.Generator) -> Unseen:
        """All bins, or a draw of those that were not taken where there are many."""
        targets, network, exists = self.config.targets, self.network, self.network.bin_exists
        if targets.conservative is Conservative.logsumexp or exists.shape[-1] - 1 <= targets.conservative_bins:
            q_logits = network.q_head(hidden)
            others = exists & ~nn.functional.one_hot(bins, exists.shape[-1]).bool()
            return Unseen(q_logits, self.head.q_values(q_logits), others)
        drawn = draw_unseen(bins, exists.sum(-1), targets.conservative_bins, generator)
        q_logits = network.q_head.at(hidden, drawn)
        return Unseen(q_logits, self.head.q_values(q_logits), torch.ones_like(drawn, dtype=torch.bool))

    def _cloning_loss(self, batch: Batch, hidden: Float[Tensor, "k n e"], bins: Int[Tensor, "k n"]) -> Float[Tensor, ""]:
        """Loss of the behaviour classifier: all that `algo=bc` learns, and what the behaviour mask needs.

        With `targets.behavior_success_only`, failures are left out even where `bc_filter_success=false` had them drawn.
        """
        loss = behavior_loss(self.network.policy_head(hidden)[..., 0], bins, self.network.bin_exists)
        copied = batch.of_steps(batch.has_action)
        if self.config.targets.behavior_success_only:
            copied = copied & batch.of_steps(batch.success)
        return masked_mean(loss, copied)

    def _value_loss(
        self,
        batch: Batch,
        hidden: Float[Tensor, "k n e"],
        bins: Int[Tensor, "k n"],
        outputs: HeadOutputs,
        targets: Targets,
        metrics: Metrics,
    ) -> Float[Tensor, ""]:
        """The weighted sum of what values are learned from and what rides along."""
        config, has_action = self.config.targets, batch.of_steps(batch.has_action)
        td = masked_mean(self.head.loss_to_probs(outputs.data_logits, targets.probs), targets.valid)
        loss = metrics.mean("td_loss", td)
        if outputs.unseen is not None:
            pushed = conservative_loss(config.conservative, self.head, *outputs.unseen, outputs.q_data)
            loss = loss + config.conservative_weight * metrics.mean("conservative_loss", masked_mean(pushed, has_action))
        if self.config.algo is Algo.q and config.floor is Floor.learned:
            mc_loss = self.head.loss(self._floor_logits(hidden, bins), self._return_bound(batch, bins))
            loss = loss + metrics.mean("mc_loss", masked_mean(mc_loss, has_action))
        if config.behavior_mask > 0:
            cloning = metrics.mean("behavior_loss", self._cloning_loss(batch, hidden, bins))
            loss = loss + config.behavior_weight * cloning
        return loss

    def _mc_return(self, batch: Batch, bins: Int[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """Every dimension's Monte-Carlo return: that of its step."""
        return batch.of_steps(batch.mc_return)[:, None].expand_as(bins)

    def _return_bound(self, batch: Batch, bins: Int[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """What the behaviour's return was at least: more than is logged may follow a time limit, and cost something."""
        known = batch if batch.return_bound is None else replace(batch, mc_return=batch.return_bound)
        return self._mc_return(known, bins)

    def _floor_logits(self, hidden: Float[Tensor, "k n e"], bins: Int[Tensor, "k n"]) -> Float[Tensor, "k n v"]:
        return self.network.mc_head.at(hidden, bins[..., None])[:, :, 0]

    def _floor(self, batch: Batch, hidden: Float[Tensor, "k n e"], bins: Int[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        match self.config.targets.floor:
            case Floor.none:
                return torch.full(bins.shape, -torch.inf, device=bins.device)
            case Floor.sample:
                return self._return_bound(batch, bins)
            case Floor.learned:
                return self.head.q_values(self._floor_logits(hidden, bins))
            case unknown:
                assert_never(unknown)

    def _targets(
        self,
        seen: Augmented,
        hidden: Float[Tensor, "k n e"],
        bins: Int[Tensor, "k n"],
        metrics: Metrics,
        generator: torch.Generator,
    ) -> Targets:
        batch = seen.batch
        has_action = batch.of_steps(batch.has_action)
        if self._bootstrap is None:
            return Targets(self.head.to_probs(self._mc_return(batch, bins)), has_action, None)
        ahead = n_step(batch, self.config.targets.time_steps, self.config.targets.discount)
        if self.config.targets.bootstrap is Bootstrap.logged:
            ahead = with_next_action(ahead, batch)
        contexts, valid = self._bootstrap.encode(seen, ahead), ahead.valid.flatten()
        next_probs = self._bootstrap.next_probs(contexts, ahead, generator)
        rewards, discounts = ahead.rewards.flatten(), ahead.discounts.flatten()
        beyond = count_beyond(self.head, rewards, discounts, self.head.to_value(next_probs), valid)
        metrics.mean("clipped_low", beyond.below / beyond.targets.clamp_min(1), beyond.targets)
        metrics.mean("clipped_high", beyond.above / beyond.targets.clamp_min(1), beyond.targets)
        probs, bootstrap_wins = self._backed_up(contexts, bins, ahead, next_probs, self._floor(batch, hidden, bins))
        uncertain = valid & (discounts > 0)
        metrics.mean("bootstrap_exceeds_floor", masked_mean(bootstrap_wins.float(), uncertain), uncertain.sum())
        metrics.mean("masked_lost_final", masked_mean((~valid).float()[:, None], has_action), has_action.sum())
        return Targets(probs, valid, beyond)

    def _backed_up(
        self,
        contexts: Contexts,
        bins: Int[Tensor, "k n"],
        ahead: NStep,
        next_probs: Float[Tensor, "k v"],
        floor: Float[Tensor, "k n"],
    ) -> tuple[Float[Tensor, "k n v"], Bool[Tensor, "k n"]]:
        """Target representation of every dimension, and where the bootstrap is above the floor."""
        rewards, discounts = ahead.rewards.flatten(), ahead.discounts.flatten()
        match self.config.targets.backup:
            case Backup.n_step:
                probs = backup_from_next_state(self.head, rewards, discounts, next_probs, bins.shape[1])
                uncertain = (discounts > 0)[:, None].expand_as(floor)
            case Backup.bellman:
                assert self._bootstrap is not None
                output, allowed = self._bootstrap.values(contexts, bins)
                probs = backup_from_next_dimension(
                    self.head, rewards, discounts, next_probs, output.q_values, output.q_logits, allowed
                )
                uncertain = torch.ones_like(floor, dtype=torch.bool)
                uncertain[:, -1] = discounts > 0
            case unknown:
                assert_never(unknown)
        # An outcome that is known needs no floor, and a learned one would raise every failure to the average outcome.
        return raise_to_floor(self.head, probs, floor.masked_fill(~uncertain, -torch.inf))

    def _descend(self, loss: Float[Tensor, ""], step: int, metrics: Metrics) -> None:
        optim = self.config.optim
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = metrics.mean("grad_norm", nn.utils.clip_grad_norm_(self.network.parameters(), optim.clip_norm))
        metrics.skipped = not bool(torch.isfinite(norm) & torch.isfinite(loss))
        if metrics.skipped:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(optim, step, self.config.steps)
        self.optimizer.step()
        if self._bootstrap is not None:
            self._bootstrap.follow(self.network)

    @torch.no_grad()
    def _observe(
        self, batch: Batch, hidden: Float[Tensor, "k n e"], outputs: HeadOutputs, targets: Targets, metrics: Metrics
    ) -> None:
        """What tells value learning that works from one that fails; see `docs/metrics.md`."""
        has_action, mc_return = batch.of_steps(batch.has_action), batch.of_steps(batch.mc_return)
        starts = (batch.of_steps(batch.episode_start) == batch.step_frames.flatten()) & has_action
        first = self.head.q_values(self.network.q_head(hidden[starts, :1])[:, 0])
        best_first = first.masked_fill(~self.network.bin_exists[0], -torch.inf).amax(-1)
        metrics.mean("v_min", torch.tensor(self.head.v_min))
        metrics.mean("v_max", torch.tensor(self.head.v_max))
        metrics.mean("q_start", best_first.mean(), starts.sum())
        metrics.mean("return_start", mc_return[starts].mean(), starts.sum())
        metrics.mean("q_data", masked_mean(outputs.q_data, has_action))
        metrics.mean("target", masked_mean(self.head.to_value(targets.probs), has_action))
        if outputs.unseen is not None:
            best_unseen = outputs.unseen.q_values.masked_fill(~outputs.unseen.exist, -torch.inf).amax(-1)
            metrics.mean("unseen_over_data", masked_mean((best_unseen > outputs.q_data).float(), has_action))
            metrics.mean("unseen_excess", masked_mean(best_unseen - outputs.q_data, has_action))
        metrics.calibrate(outputs.q_data[has_action, -1], mc_return[has_action], self.head.v_min, self.head.v_max)

    def state_dict(self) -> dict[str, Tensor]:
        """Optimiser, target network and range of values as named tensors (the network itself is saved apart)."""
        state = optimizer_state(self.optimizer, self.network)
        if self.target_network is not None:
            state |= {f"target_network.{k}": v for k, v in self.target_network.state_dict().items()}
        return state | ({} if self.growth is None else state_of(self.head, self.growth))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave; training goes on bit for bit (CPU)."""
        restore_optimizer(self.optimizer, self.network, state)
        if self.target_network is not None:
            prefix = "target_network."
            self.target_network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        if self.growth is not None and (found := range_in(state)):
            self._use(self._head_for(*found))
            self.growth.seen = state["support.seen"]


def draws_seed(seed: int, step: int) -> int:
    """Seed of a step's own draws. PyTorch's generator on the CPU reads 32 bits, so seed and step share them."""
    return (seed * 0x9E3779B1 + step) & 0xFFFFFFFF

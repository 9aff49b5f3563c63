"""Episodes from rosbag2 bags (MCAP, sqlite3), with no ROS installed: a topic contract says which topics become what."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Episode
from qtransformer_datasets.episodes.check import ACTION_TOLERANCE, problems_of
from qtransformer_datasets.episodes.reader import EpisodeReader
from qtransformer_datasets.episodes.wild_values import WildValues, warn_of_stretched_limits
from qtransformer_datasets.rosbag.contract_entries import OUTCOMES
from qtransformer_datasets.rosbag.contract_fit import index_bag
from qtransformer_datasets.rosbag.decoder import decode
from qtransformer_datasets.rosbag.lost_bags import first_of, warn_of_lost_bags
from qtransformer_datasets.rosbag.plans import Plan, Planner
from qtransformer_datasets.rosbag.report import BagReport
from qtransformer_datasets.rosbag.ros_messages import observation_digest
from qtransformer_datasets.rosbag.slow_topics import warn_of_slow_topics
from qtransformer_datasets.rosbag.storage import find_bags
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract

OnGap = Literal["error", "split"]
OutcomeLabel = Literal["success", "failure", "timeout"]


class BagEpisodes(EpisodeReader[None]):
    """The episodes of one bag, of a storage file, or of a folder of bags in natural order; an `EpisodeSource`.

    Opening scans every bag once for its times; images are decoded as they are read, only those that a tick uses.

    `contract`: what the topics mean, or the YAML file that says so.
    `on_gap`: "error" refuses a bag in which a topic falls silent beyond its tolerance, or a clock jumps back; "split"
    makes episodes of what lies between. All but the last piece are then truncated, and the outcome belongs to the last.
    `partial`: keep what is readable of broken bags, and leave out those that cannot be used, with a warning that tells why.
    `on_bad_episode`: "skip" leaves out whole bags that cannot be used, broken or not of the contract, with the same warning.
    `reports` say of both which bags and why.
    `outcome`: how episodes ended that do not say so themselves.
    `limits_from_data`: take limits of actions that the contract leaves open from the smallest and largest value found.
    `clip_actions`: move actions beyond the contract's limits onto them, rather than refuse them; `info["clipped_actions"]` then
    says which share of the steps of each dimension that was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        contract: TopicContract | str | os.PathLike[str] | None = None,
        on_gap: OnGap = "error",
        partial: bool = False,
        on_bad_episode: Literal["stop", "skip"] = "stop",
        outcome: OutcomeLabel | None = None,
        limits_from_data: bool = False,
        clip_actions: bool = False,
    ) -> None:
        self.path = Path(path)
        if on_gap not in ("error", "split"):
            raise ConfigError(f"on_gap expected 'error' or 'split', found {on_gap!r}; choose one")
        if outcome not in (None, *OUTCOMES):
            raise ConfigError(f"outcome expected one of {', '.join(OUTCOMES)}, found {outcome!r}; choose one")
        if contract is None:
            raise DatasetError(f"{self.path}: a bag does not say what its topics mean; say so: contract=FILE.yaml")
        loaded = contract if isinstance(contract, TopicContract) else TopicContract.load(contract)
        self.contract = loaded.resolved()
        self.clip_actions = clip_actions
        self._planner = Planner(self.contract, splits=on_gap == "split", otherwise=outcome)
        self._reports, self._plans = list[BagReport](), list[Plan]()
        self._skips = on_bad_episode == "skip"
        for bag in tqdm(find_bags(self.path), desc="scanning", unit="bag", disable=None):
            self._take(bag, partial)
        if not self._plans:
            raise DatasetError(f"{self.path}: no episode can be read: {first_of(self.problems)}")
        warn_of_lost_bags(self.path, self._reports)
        warn_of_slow_topics(self.path, self.contract, self._plans, self._reports)
        self.attributes = {"format": "rosbag2", "contract": self.contract.to_dict()}
        self.observation_spec = self.contract.observation_spec(self._native_sizes())
        self.action_spec = self.contract.action_spec(self._found_limits() if limits_from_data else None)

    def __len__(self) -> int:
        return len(self._plans)

    @property
    def lengths(self) -> list[int]:
        """Steps per episode."""
        return [len(plan.piece.ticks.times) - 1 for plan in self._plans]

    @property
    def problems(self) -> list[str]:
        """What `partial` and `on_bad_episode` passed over."""
        return [problem for report in self._reports for problem in report.problems]

    @property
    def reports(self) -> list[BagReport]:
        """Per bag and topic: counts, rates, gaps, and what is wrong."""
        return self._reports

    def _open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def where(self, index: int) -> str:
        return self._plans[index].where

    def says_success(self, index: int) -> bool:
        return self._plans[index].says_outcome

    def _load(self, opened: None, index: int) -> Episode:
        plan = self._plans[index]
        decoded = decode(plan.index, plan.piece, self.contract, self.observation_spec)
        length = len(plan.piece.ticks.times) - 1
        is_success = plan.outcome == "success"
        last = np.arange(length) == length - 1
        terminated = last & (plan.outcome in ("success", "failure"))
        episode = Episode(
            images=decoded.images,
            proprio=decoded.proprio.astype(np.float32),
            actions=self._scaled(decoded.actions, plan.where),
            rewards=self._rewards(plan) if self.contract.reward else (last & is_success).astype(np.float32),
            terminated=terminated,
            truncated=last & ~terminated,
            timestamps=plan.piece.ticks.times / NANOSECONDS,
            instruction=plan.instruction,
            success=is_success,
            info={"bag": plan.index.bag.path.name, "outcome": plan.outcome, "start_ns": int(plan.piece.ticks.times[0])},
        )
        _check_digests(episode, plan)
        return episode

    def _take(self, path: Path, partial: bool) -> None:
        """Plan a bag's episodes and report on it. Of one that cannot be used, report alone, or raise."""
        try:
            index = index_bag(path, self.contract, partial)
            plans, report = self._planner.plan(index, len(self._plans))
            if report.problems and not partial:
                raise DatasetError(report.problems[0])
        except DatasetError as error:
            if not (partial or self._skips):
                raise
            plans, report = [], BagReport(path, problems=tuple(problems_of(error)))
        self._plans += plans
        self._reports.append(report)

    def _rewards(self, plan: Plan) -> np.ndarray:
        """What came in (tick, next tick]; the last step takes all until the window's end.

        By receipt, as a reward has no header and the ticks may run on the stamps of a simulated clock.
        """
        ticks, window = self._received(plan), plan.piece.window
        rewards = np.zeros(len(ticks) - 1)
        for time, value in plan.index.rewards:
            if not window.start <= time < window.until:
                continue
            step = int(np.searchsorted(ticks, time, "left")) - 1
            if step >= len(rewards) and plan.piece.is_end:
                step = len(rewards) - 1
            if 0 <= step < len(rewards):
                rewards[step] += value
        return rewards.astype(np.float32)

    def _received(self, plan: Plan) -> np.ndarray:
        """The ticks by receipt [ns], int64 (T + 1,): as long after the receipt of their newest sample as after its own time."""
        observed = plan.index.readings(self.contract.observed)
        samples = [(part, own) for (_, part), own in zip(observed, plan.piece.ticks.samples, strict=False)]  # commands follow
        times = np.array([part.times[own] for part, own in samples])
        newest = times.max(axis=0)
        received = np.array([part.receive[own] for part, own in samples])
        received = np.where(times == newest, received, 0).max(axis=0)
        return np.maximum.accumulate(received + plan.piece.ticks.times - newest)

    def _scaled(self, actions: np.ndarray, where: str) -> np.ndarray:
        """Robot units, float64 (T, n), to [-1, 1]; beyond it only where they are to be clipped."""
        scaled = self.action_spec.to_scaled(actions)
        if self.clip_actions:
            return scaled
        outside = np.abs(scaled) > 1 + ACTION_TOLERANCE
        if outside.any():
            names = self.action_spec.names
            share = ", ".join(
                f"'{names[i]}' in {100 * outside[:, i].mean():.1f} % of the steps (from {actions[:, i].min():.4g} to "
                f"{actions[:, i].max():.4g}, limits {self.action_spec.low[i]:.4g} to {self.action_spec.high[i]:.4g})"
                for i in np.flatnonzero(outside.any(0))
            )
            raise DatasetError(f"{where}: actions beyond limits: {share}; widen them in the contract, or use clip_actions=True")
        return np.clip(scaled, -1, 1)

    def _native_sizes(self) -> dict[str, tuple[int, int]]:
        sizes = self._plans[0].index.image_sizes
        return {name: sizes[camera.topic] for name, camera in self.contract.cameras.items() if camera.size is None}

    def _commanded(self) -> Iterator[tuple[int, np.ndarray]]:
        """The number and the actions of every episode that can be read; the others are skipped on reading, where that is asked."""
        for number, plan in enumerate(self._plans):
            try:
                actions = decode(plan.index, plan.piece, self.contract, None).actions
            except DatasetError:
                if not self._skips:
                    raise
                continue
            yield number, actions

    def _found_limits(self) -> list[tuple[float, float]]:
        parts, wild = list[np.ndarray](), WildValues(self.contract.action_names)
        for number, actions in self._commanded():
            parts.append(actions)
            wild.include_episode(actions, number)
        if not parts:
            raise DatasetError(f"{self.path}: no episode can be read to take limits from; `qtransformer data validate` tells why")
        given = [name for name, own in zip(self.contract.action_names, self.contract.limits(), strict=True) if own is not None]
        warn_of_stretched_limits(wild, given, self.where, lambda _: "give limits in the contract, and clip_actions=true")
        actions = np.concatenate(parts)
        limits = [(float(low), float(high)) for low, high in zip(actions.min(0), actions.max(0), strict=True)]
        for name, own, (low, high) in zip(self.contract.action_names, self.contract.limits(), limits, strict=True):
            if own is None and not low < high:
                raise DatasetError(f"{self.path}: action '{name}' is {low:g} throughout; give its limits in the contract")
        return limits


def _check_digests(episode: Episode, plan: Plan) -> None:
    """Raise unless the observations are, to the last bit, those that the policy says it decided on."""
    for t, digest in enumerate(plan.piece.ticks.digests):
        images = {name: rows[t] for name, rows in episode.images.items()}
        if digest and observation_digest({"images": images, "proprio": episode.proprio[t]}) != digest:
            raise DatasetError(
                f"{plan.where}: step {t} is not what the policy decided on, though the stamps agree: the bag was changed, a topic "
                "repeats stamps with other contents, or the contract is not the one that the policy acted through"
            )

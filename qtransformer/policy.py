"""A trained network as something that acts: numpy in, numpy out, robot units."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import read_checkpoint
from qtransformer.config import Algo, TrainConfig
from qtransformer.distrust import distrusted, reward_on_the_way
from qtransformer.errors import CheckpointError, ConfigError, SpecMismatchError
from qtransformer.memory import Recollection
from qtransformer.models.q_transformer import Decision, QTransformer
from qtransformer.preprocess import encode_instruction, images_to_float
from qtransformer.surprise import Surprise
from qtransformer.types import ActionSpec, Observation, ObservationSpec

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden Q-value, as a share of the value range, across devices and library versions."""


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one; anything else is PyTorch's name of a device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name} is not a device: use auto, cpu, cuda or cuda:<n>") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name}: training and acting run on cpu and cuda alone; use auto, cpu, cuda or cuda:<n>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name} asked for, but PyTorch sees {torch.cuda.device_count() or 'no'} CUDA device(s); use device=cpu or "
            "device=auto"
        )
    return device


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """An action and the reasons for it."""

    action: Float[np.ndarray, "n"]
    """Robot units."""
    bins: Int[np.ndarray, "n"]
    """Chosen bin of each dimension."""
    q_values: Float[np.ndarray, "n a"]
    """Expected return of every bin of each dimension, given the chosen dimensions before it."""
    allowed: np.ndarray
    """bool (n, a): bins the behaviour mask left to choose from (padding bins are never allowed)."""
    value_probs: Float[np.ndarray, "n v"]
    """How the value head represents the chosen bins' returns: a distribution for categorical heads."""

    @property
    def value(self) -> float:
        """Expected return of the whole action."""
        return float(self.q_values[-1, self.bins[-1]])


class Policy:
    """Acts greedily on a Q-Transformer (or imitates, for `algo=bc`).

    The tokens of earlier frames are kept, so the cost of a step does not grow with the history. `reset` must be called between
    episodes. Observations are dictionaries as described in `qtransformer.types`.
    """

    def __init__(
        self,
        network: QTransformer,
        config: TrainConfig,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        device: torch.device,
        reward_on_the_way: float = 0.0,
        acting: ActingConfig | None = None,
    ) -> None:
        """
        Args:
            network: what acts.
            config: of its training.
            action_spec: of its data.
            observation_spec: of its data.
            device: where the network is.
            reward_on_the_way: the highest in the data before an episode ends; a surprise is what even that does not explain.
            acting: how to act; None is as trained.

        Raises:
            ConfigError: it cannot act so.
        """
        self.network, self.config, self.device = network, config, device
        self.action_spec, self.observation_spec = action_spec, observation_spec
        self.value: float | None = None
        """Expected return of the last action; None for a cloned policy, whose values were never trained."""
        self._draws = torch.Generator().manual_seed(config.seed)
        self._recollection = self._nothing_seen()
        self._targets = targets = (acting or ActingConfig()).over(config)
        self._surprise = Surprise(targets.surprise, targets.discount, reward_on_the_way) if targets.surprise else None
        self._tokens: deque[Float[Tensor, "1 1 s e"]] = deque(maxlen=config.model.history)
        self._instruction: tuple[str, Tensor] | None = None

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto", acting: ActingConfig | None = None) -> "Policy":
        """Load a run or checkpoint directory, verify it, and replay its golden sample. It acts as trained, or as `acting` says.

        Raises:
            CheckpointError: it is missing, incomplete, altered, or acts differently from when it was saved.
            ConfigError: it cannot act as `acting` asks.
        """
        chosen = pick_device(device)
        artefact = read_checkpoint(path, chosen)
        reward = reward_on_the_way(artefact.stats)
        made_of = artefact.network, artefact.config, artefact.action_spec, artefact.observation_spec, chosen, reward
        policy = cls(*made_of)
        policy.verify_golden(artefact.golden, str(path))
        return cls(*made_of, acting) if acting else policy

    def reset(self) -> None:
        """Forget the episode so far. What is drawn in the next one follows from the training's seed alone."""
        self._tokens.clear()
        self._recollection = self._nothing_seen()
        if self._surprise is not None:
            self._surprise.forget()
        self._draws.manual_seed(self.config.seed)
        self.value = None

    def act(self, observation: Observation | Any) -> Float[np.ndarray, "n"]:
        """The action it values most, in robot units; of drawn proposals where it was trained to act by them.

        Raises:
            SpecMismatchError: cameras, image shapes, dtypes or proprioception are not what the policy was trained on.
        """
        return self.decide(observation).action

    def take_back(self) -> None:
        """What was last decided was not carried out: nothing that follows is put down to it."""
        if self._surprise is not None:
            self._surprise.undo_last()

    @torch.inference_mode()
    def decide(self, observation: Observation | Any) -> PolicyDecision:
        """That action with the values it was chosen by."""
        return self._told(self._surprised(self._take_in(observation), observation))

    @torch.inference_mode()
    def shadow(self, observation: Observation | Any) -> PolicyDecision:
        """What `decide` would choose while somebody else acts: what comes of it is not to the credit of the policy's own choice, so
        that there is no surprise."""
        if self._surprise is not None:
            self._surprise.interrupt()
        return self._told(self.greedy(self._take_in(observation)))

    @torch.inference_mode()
    def score(self, observation: Observation | Any | None, actions: np.ndarray) -> Float[np.ndarray, "k n"]:
        """Expected return after each dimension of candidate actions, whoever proposed them; the last column is the action's.

        The observation is judged as `decide` would judge it next, after the frames kept so far, but is not kept: scoring
        leaves the policy's episode as it was. None stands for the observation last decided on.

        Args:
            observation: what the candidates are for; encoded once for all of them.
            actions: (k, n) in robot units. A value beyond its limits is judged as the outermost bin, as in training.

        Raises:
            SpecMismatchError: the observation does not fit, or `actions` is not finite and (k, n).
            ConfigError: a cloned policy has no values; or nothing was decided yet and the observation is None.
        """
        if self.imitates:
            raise ConfigError(
                "a cloned policy (algo=bc) has no trained values to score actions by; use a Q-Transformer's checkpoint"
            )
        bins = self.network.tokenizer.encode(torch.from_numpy(self.action_spec.to_scaled(self._candidates(actions))))
        frames = list(self._tokens)
        if observation is not None:
            self._check(observation)
            frames = [*frames, self._encode(observation, self._after(observation))][-self.config.model.history :]
        if not frames:
            raise ConfigError("no observation to score actions for: give one, or decide first")
        context = self._context(frames)
        hidden = self.network.hidden(context.expand(len(bins), -1, -1), bins.to(self.device))
        logits = self.network.q_head.at(hidden, bins.to(self.device)[..., None])
        return self.network.value_head.q_values(logits)[..., 0].cpu().numpy()

    @property
    def imitates(self) -> bool:
        """Whether it follows the behaviour classifier, because its values were never trained (`algo=bc`)."""
        return self.config.algo is Algo.bc

    @property
    def acting(self) -> ActingConfig | None:
        """The settings it acts by, all of them; None for a cloned policy, which has none."""
        return None if self.imitates else ActingConfig.of(self._targets)

    @property
    def not_as_trained(self) -> str:
        """Which of these settings are others than in its training, in words; "" where none are."""
        return ActingConfig.of(self._targets).departures(ActingConfig.of(self.config.targets))

    def greedy(self, context: Float[Tensor, "b s e"]) -> Decision:
        """The decision for windows of observation tokens: one rule for the frame a robot sees and for all frames of a log. Who acts
        by it also takes in what has surprised it (`decide`); of a log's frames nothing followed from the policy's own choices."""
        targets = self._targets
        if self.imitates:
            return self.network.greedy(context, 0.0, imitate=True)
        if targets.proposals:
            return self.network.best_of(context, targets.proposals, targets.behavior_mask, self._draws)
        return self.network.greedy(context, targets.behavior_mask)

    def _surprised(self, context: Float[Tensor, "1 s e"], observation: Observation) -> Decision:
        """`greedy`, but for what has disappointed before in this episode."""
        targets, network = self._targets, self.network
        if self._surprise is None or self.imitates:
            return self.greedy(context)
        bins, probs = network.candidates(context, targets.proposals, targets.behavior_mask, self._draws)
        values, actions = network.value_head.to_value(probs)[0].cpu().numpy(), network.tokenizer.decode(bins[0]).cpu().numpy()
        proprio = torch.from_numpy(np.asarray(observation["proprio"], np.float32)).to(self.device)
        state = network.normalised(proprio).cpu().numpy()
        self._surprise.observe_value(float(values.max()))
        best = int((values + self._surprise.penalty(state, actions)).argmax())
        self._surprise.record_action(state, actions[best], float(values[best]))
        return network.reasons(context, bins[:, best], targets.behavior_mask)

    def _take_in(self, observation: Observation | Any) -> Float[Tensor, "1 s e"]:
        """The window that ends with this observation, the next one of the episode."""
        self._check(observation)
        self._recollection = self._after(observation)
        self._tokens.append(self._encode(observation, self._recollection))
        return self._context(self._tokens)

    def _told(self, decision: Decision) -> PolicyDecision:
        scaled = self.network.tokenizer.decode(decision.bins)[0]
        result = PolicyDecision(
            action=self.action_spec.to_units(scaled.cpu().numpy()),
            bins=decision.bins[0].cpu().numpy(),
            q_values=decision.q_values[0].cpu().numpy(),
            allowed=decision.allowed[0].cpu().numpy(),
            value_probs=decision.chosen_probs[0].cpu().numpy(),
        )
        self.value = None if self.imitates else result.value
        return result

    def golden_sample(self, observation: Observation) -> dict[str, np.ndarray]:
        """An observation and what this policy makes of it, as arrays to be replayed after loading."""
        self.reset()
        decision = self.decide(observation)
        self.reset()
        return {
            **{f"image/{name}": np.asarray(observation["images"][name]) for name in self.network.cameras},
            "proprio": np.asarray(observation["proprio"], np.float32),
            "instruction": np.frombuffer(observation.get("instruction", "").encode(), np.uint8),
            "q_values": decision.q_values,
            "bins": decision.bins,
        }

    def verify_golden(self, golden: Mapping[str, np.ndarray], where: str) -> None:
        """Check that this policy still makes the same of its golden sample.

        Raises:
            CheckpointError: values differ by more than `GOLDEN_TOLERANCE` of the value range.
        """
        expected = {"proprio", "instruction", "bins", "q_values", *(f"image/{name}" for name in self.network.cameras)}
        if not expected <= golden.keys():
            raise CheckpointError(f"{where}/golden.npz lacks {', '.join(sorted(expected - golden.keys()))}; save it anew")
        head = self.network.value_head
        with distrusted(Path(where), "golden.npz"):
            decision = self._replayed(golden)
            # Rows are comparable as long as the dimensions before them agree; another device may break a tie otherwise.
            comparable = int(np.argmax([*(decision.bins != golden["bins"]), True])) + 1
            saved, found = golden["q_values"][:comparable], decision.q_values[:comparable]
            difference = float(np.abs(found - saved).max()) / head.span
        if not difference <= GOLDEN_TOLERANCE:
            raise CheckpointError(
                f"{where} does not act as it did when it was saved: its golden sample gives bins {decision.bins.tolist()} "
                f"(saved {golden['bins'].tolist()}), values differ by {difference:.2g} of their range "
                f"(allowed {GOLDEN_TOLERANCE:g}); the code or libraries have changed: retrain, or use the versions in metadata.json"
            )

    def _replayed(self, golden: Mapping[str, np.ndarray]) -> PolicyDecision:
        images = {name: golden[f"image/{name}"] for name in self.network.cameras}
        instruction = golden["instruction"].tobytes().decode()
        decision = self.decide({"images": images, "proprio": golden["proprio"], "instruction": instruction})
        self.reset()
        for name in ("bins", "q_values"):
            saved, found = golden[name], getattr(decision, name)
            if saved.shape != found.shape or saved.dtype.kind != found.dtype.kind:
                raise ValueError(f"{name} expected as {found.dtype} {found.shape}, found {saved.dtype} {saved.shape}")
        return decision

    def _context(self, frames: Sequence[Float[Tensor, "1 1 s e"]]) -> Float[Tensor, "1 s2 e"]:
        """The window of the newest frames; where the episode is younger than the history, its first frame is repeated."""
        missing = self.config.model.history - len(frames)
        return self.network.add_age(torch.cat([frames[0]] * missing + list(frames), dim=1))

    def _candidates(self, actions: np.ndarray) -> np.ndarray:
        candidates = np.asarray(actions, np.float64)
        if candidates.ndim != 2 or candidates.shape[1] != len(self.action_spec) or not np.isfinite(candidates).all():
            raise SpecMismatchError(
                f"candidate actions: the policy expects finite numbers of shape (k, {len(self.action_spec)}), one column for each "
                f"of {', '.join(self.action_spec.names)}, found shape {candidates.shape}: {candidates}"
            )
        return candidates

    def _nothing_seen(self) -> Recollection | None:
        memory = self.network.memory
        return memory and Recollection.fresh(memory, len(self.observation_spec.proprio_names))

    def _after(self, observation: Observation) -> Recollection | None:
        """What is remembered at this observation, the next one of the episode."""
        return self._recollection and self._recollection.after(observation["proprio"])

    def _encode(self, observation: Observation, recollection: Recollection | None) -> Float[Tensor, "1 1 s e"]:
        images = {
            name: images_to_float(torch.from_numpy(np.ascontiguousarray(observation["images"][name])).to(self.device))
            for name in self.network.cameras
        }
        proprio = torch.from_numpy(np.asarray(observation["proprio"], np.float32)).to(self.device)
        return self.network.encode_frames(
            {name: x[None, None] for name, x in images.items()},
            proprio[None, None],
            self._instruction_features(observation.get("instruction", ""))[None, None],
            None if recollection is None else torch.from_numpy(recollection.rows).to(self.device)[None, None],
        )

    def _instruction_features(self, text: str) -> Float[Tensor, "d"]:
        if self._instruction is None or self._instruction[0] != text:
            self._instruction = (text, torch.from_numpy(encode_instruction(text)).to(self.device))
        return self._instruction[1]

    def _check(self, observation: Any) -> None:
        expected = self.observation_spec
        if not _is_observation(observation):
            found = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
            raise SpecMismatchError(
                'an observation is {"images": {camera: uint8 (h, w, 3)}, "proprio": float (p,), "instruction": str}, '
                f"the instruction optional; found {found}"
            )
        missing = sorted(set(expected.cameras) - set(observation["images"]))
        if missing:
            raise SpecMismatchError(
                f"camera(s) {', '.join(missing)} missing: the policy expects {sorted(expected.cameras)}, "
                f"the observation has {sorted(observation['images'])}; rename or add them"
            )
        for name, shape in expected.cameras.items():
            image = np.asarray(observation["images"][name])
            if image.shape != tuple(shape) or image.dtype != np.uint8:
                raise SpecMismatchError(
                    f"camera '{name}': the policy expects uint8 {tuple(shape)} (h, w, RGB), "
                    f"found {image.dtype} {image.shape}; resize or convert the image"
                )
        proprio = np.asarray(observation["proprio"])
        if proprio.shape != (len(expected.proprio_names),) or not np.isfinite(proprio).all():
            raise SpecMismatchError(
                f"proprioception: the policy expects {len(expected.proprio_names)} finite values "
                f"{expected.proprio_names}, found shape {proprio.shape}: {proprio}"
            )


def _is_observation(observation: Any) -> bool:
    """Whether it has the parts of one, of the right kind."""
    try:
        np.asarray(observation["proprio"], np.float32)
        return isinstance(observation["images"], Mapping) and isinstance(observation.get("instruction", ""), str)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False

"""The half of robomimic_baselines.py that runs in .venv-robomimic: learns with robomimic's code, then acts in our simulator.

Reads RUN/job.json, keeps RUN/state.pt while it trains, and writes RUN/result.json.
"""
# pyright: reportMissingImports=false

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import robomimic
import robomimic.models.obs_core as obs_core
import robomimic.utils.obs_utils as obs_utils
import torch
from robomimic.algo import RolloutPolicy, algo_factory
from robomimic.config import config_factory
from robomimic.models.base_nets import ConvBase
from robomimic.utils.dataset import SequenceDataset
from robomimic.utils.train_utils import run_epoch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from qtransformer.cli.factories import SIMULATOR, EnvFactory
from qtransformer.errors import DatasetError, QTransformerError
from qtransformer.evaluate import run_episode
from qtransformer.files import write_json
from qtransformer.types import ActionSpec, Episode, Observation
from qtransformer_datasets import HDF5Episodes
from robomimic_baselines import JOB, RESULT, digest

EPOCH_STEPS = 20
"""Steps between two looks at the clock."""
SAVE_SECONDS = 30.0
CROP = 76 / 84
"""Share of an image's side that a random crop keeps: robomimic's 76 of 84 pixels."""
STATE = "state.pt"


class OurConv(ConvBase):
    """The convolutions of our ConvEncoder (width 32) and the narrowing of its PlaceReadout, without the instruction's FiLM."""

    CHANNELS = 16

    def __init__(self, input_channel: int = 3) -> None:
        super().__init__()
        shapes = [(input_channel, 32, 8, 4, 2), (32, 64, 3, 2, 1), (64, 64, 3, 1, 1), (64, self.CHANNELS, 1, 1, 0)]
        convs = [nn.Conv2d(i, o, k, stride, padding) for i, o, k, stride, padding in shapes]
        for conv in convs[:-1]:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.nets = nn.Sequential(*(layer for conv in convs for layer in (conv, nn.LeakyReLU(0.1))))

    def output_shape(self, input_shape: Any) -> list[int]:
        height, width = (((side + 4 - 8) // 4 + 1 - 1) // 2 + 1 for side in input_shape[1:])
        return [self.CHANNELS, height, width]


obs_core.OurConv = OurConv  # robomimic looks a backbone up by its name, there


class Scale(NamedTuple):
    """Proprioception in its standard deviations, for training and acting alike."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, episodes: list[Episode]) -> "Scale":
        rows = np.concatenate([episode.proprio[:-1] for episode in episodes])
        return cls(rows.mean(0), rows.std(0) + 1e-3)  # robomimic's own tolerance

    def __call__(self, proprio: np.ndarray) -> np.ndarray:
        return ((proprio - self.mean) / self.std).astype(np.float32)


UNSCALED = Scale(np.zeros(1), np.ones(1))


class OurFile(SequenceDataset):
    """robomimic's dataset on a file of ours, which stores each frame once and tells termination from a time limit."""

    def __init__(self, path: Path, episodes: list[Episode], scale: Scale, **settings: Any) -> None:
        self._episodes, self._scale = episodes, scale
        super().__init__(hdf5_path=str(path), hdf5_cache_mode="all", **settings)
        self._episodes = []  # robomimic holds every sample on its own now

    def load_demo_info(self, filter_by_attribute: Any = None, demos: Any = None) -> None:
        lengths = [len(episode) for episode in self._episodes]
        self.demos = [f"demo_{index}" for index in range(len(lengths))]
        self.n_demos, self.total_num_sequences = len(lengths), sum(lengths)
        self._demo_id_to_demo_length = dict(zip(self.demos, lengths, strict=True))
        self._demo_id_to_start_indices = dict(zip(self.demos, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
        owners = [demo for demo, length in self._demo_id_to_demo_length.items() for _ in range(length)]
        self._index_to_demo_id = dict(enumerate(owners))

    def load_dataset_in_memory(self, demo_list: Any, load_next_obs: bool, **_: Any) -> dict[str, Any]:
        return {name: self._demo(episode, load_next_obs) for name, episode in zip(demo_list, self._episodes, strict=True)}

    def _demo(self, episode: Episode, load_next_obs: bool) -> dict[str, Any]:
        frames = observed(episode.images, self._scale(episode.proprio))
        arrays = {"actions": episode.actions, "rewards": episode.rewards, "dones": episode.terminated.astype(np.float32)}
        arrays["obs"] = {key: rows[:-1] for key, rows in frames.items()}
        return arrays | ({"next_obs": {key: rows[1:] for key, rows in frames.items()}} if load_next_obs else {})


def observed(images: Mapping[str, np.ndarray], proprio: np.ndarray) -> dict[str, np.ndarray]:
    """Frames or a frame under the names our files give them."""
    return {"proprio": proprio, **{f"{camera}_image": rows for camera, rows in images.items()}}


class Peer:
    """A robomimic policy as an actor of ours."""

    def __init__(self, algo: Any, scale: Scale, spec: ActionSpec) -> None:
        self._policy, self._scale, self._spec = RolloutPolicy(algo), scale, spec
        self.first_seen: list[str] = []
        """Digests of the observations that episodes began with."""

    def reset(self) -> None:
        self._policy.start_episode()
        self._is_new = True

    def act(self, observation: Observation) -> np.ndarray:
        if self._is_new:
            self.first_seen.append(digest(observation))
            self._is_new = False
        frame = observed(observation["images"], self._scale(observation["proprio"]))
        scaled = self._policy({key: obs_utils.process_obs(obs=value, obs_key=key) for key, value in frame.items()})
        return self._spec.to_units(np.clip(scaled, -1.0, 1.0))


class Progress(NamedTuple):
    steps: int = 0
    train_seconds: float = 0.0
    """Inside `run_epoch` alone."""
    cpu_seconds: float = 0.0
    """The processor's share of them: what other work on the machine does not stretch."""
    loss: float = 0.0
    """Mean of the last epoch: of BC's loss, or of IQL's actor."""


def main(run: Path) -> None:
    job = json.loads((run / JOB).read_text())
    torch.set_num_threads(job["threads"])
    np.random.seed(job["seed"])  # noqa: NPY002 -- robomimic's generator
    torch.manual_seed(job["seed"])
    source = HDF5Episodes(job["data"])
    algo = make_algo(job, source)
    progress = load(algo, run) if (run / STATE).exists() else Progress()
    episodes = chosen_episodes(source, job)
    data = {
        "name": source.path.name,
        "fingerprint": job["fingerprint"],
        "recipe": source.attributes.get("recipe", ""),
        "episodes": len(episodes),
        "transitions": sum(map(len, episodes)),
    }
    scale = Scale.of(episodes) if job["normalize"] else UNSCALED
    loader = make_loader(algo, episodes, scale, job) if next_steps(progress, job["steps"], job["minutes"]) else None
    del episodes  # the loader holds what it needs of them
    if loader is not None:
        progress = train(algo, loader, progress, job, run)
    actor = Peer(algo, scale, source.action_spec)
    outcomes = act(actor, job)
    result = {
        **progress._asdict(),
        **sizes(algo),
        "data": data,
        "robomimic": robomimic.__version__,
        "torch": torch.__version__,
        "outcomes": outcomes,
        "scenes": actor.first_seen,
    }
    write_json(run / RESULT, result)


def chosen_episodes(source: HDF5Episodes, job: Mapping[str, Any]) -> list[Episode]:
    """Those to train on. Refuses what cannot be trained on."""
    episodes = [episode for episode in source if episode.success or job["filter"] == "all"]
    steps, lost = sum(map(len, episodes)), sum(not episode.has_final_observation for episode in episodes)
    if not episodes:
        raise DatasetError(f"{source.path}: no episode succeeds, so there is none to imitate; give filter=all")
    if lost and job["algo"] == "iql":
        raise DatasetError(f"{source.path}: {lost} episodes lost their final observation, which IQL looks at; leave them out")
    if steps < job["batch"]:
        raise DatasetError(f"{source.path}: {steps} transitions are fewer than a batch of {job['batch']}; give batch=...")
    return episodes


def make_algo(job: Mapping[str, Any], source: HDF5Episodes) -> Any:
    config, spec = peer_config(job, source), source.observation_spec
    shapes = {"proprio": [len(spec.proprio_names)]} | {f"{name}_image": [c, h, w] for name, (h, w, c) in spec.cameras.items()}
    with quiet():
        obs_utils.initialize_obs_utils_with_config(config)
        return algo_factory(config.algo_name, config, shapes, len(source.action_spec), torch.device("cpu"))


def peer_config(job: Mapping[str, Any], source: HDF5Episodes) -> Any:
    """What is not said here is robomimic's default; the encoder's pool and width are those of its published image agents."""
    config = config_factory(job["algo"])
    spec = source.observation_spec
    with config.values_unlocked():
        config.train.batch_size = job["batch"]
        config.train.seed = job["seed"]
        for optimizer in config.algo.optim_params.values():
            optimizer.learning_rate.initial = job["lr"]
        if job["algo"] == "bc":
            config.algo.gaussian.enabled = job["head"] == "gaussian"
            config.algo.gmm.enabled = job["head"] == "gmm"
        else:
            config.algo.actor.net.type = job["head"]
            config.algo.adv.beta = job["beta"]
        config.observation.modalities.obs.low_dim = ["proprio"]
        config.observation.modalities.obs.rgb = [f"{camera}_image" for camera in spec.cameras]
        rgb = config.observation.encoder.rgb
        height, width = next((h, w) for h, w, _ in spec.cameras.values())
        rgb.obs_randomizer_class = "CropRandomizer"
        rgb.obs_randomizer_kwargs = {"crop_height": round(CROP * height), "crop_width": round(CROP * width), "num_crops": 1}
        rgb.core_kwargs = {"feature_dimension": 64, "backbone_kwargs": {}, **CORES[job["encoder"]]}
    return config


CORES: dict[str, dict[str, Any]] = {
    "ours": {"backbone_class": "OurConv", "pool_class": None, "pool_kwargs": {}},
    "shallow": {"backbone_class": "ShallowConv", "pool_class": "SpatialSoftmax", "pool_kwargs": {"num_kp": 32}},
}


def make_loader(algo: Any, episodes: list[Episode], scale: Scale, job: Mapping[str, Any]) -> DataLoader:
    """As robomimic's train.py makes it."""
    settings = {"obs_keys": list(algo.obs_shapes), "dataset_keys": ["actions", "rewards", "dones"]}
    with quiet():
        dataset = OurFile(Path(job["data"]), episodes, scale, **settings, load_next_obs=job["algo"] == "iql")
    return DataLoader(dataset, batch_size=job["batch"], shuffle=True, drop_last=True)


def train(algo: Any, loader: DataLoader, progress: Progress, job: Mapping[str, Any], run: Path) -> Progress:
    """Go on to the end that was asked for, saving now and then."""
    saved = time.monotonic()
    with tqdm(total=job["steps"] or None, initial=progress.steps, desc=f"robomimic's {job['algo']}", unit="step") as bar:
        while steps := next_steps(progress, job["steps"], job["minutes"]):
            progress = epoch(algo, loader, progress, steps)
            bar.update(steps)
            bar.set_postfix(loss=f"{progress.loss:.4f}", minutes=f"{progress.train_seconds / 60:.1f}", refresh=False)
            if time.monotonic() - saved > SAVE_SECONDS:
                save(algo, progress, run)
                saved = time.monotonic()
    save(algo, progress, run)
    return progress


def next_steps(progress: Progress, steps: int, minutes: float) -> int:
    """How many steps to take before looking again; none at the end."""
    if minutes and progress.train_seconds >= 60 * minutes:
        return 0
    return max(0, min(EPOCH_STEPS, steps - progress.steps)) if steps else EPOCH_STEPS


def epoch(algo: Any, loader: DataLoader, progress: Progress, steps: int) -> Progress:
    began, cpu = time.perf_counter(), time.process_time()
    with quiet():
        log = run_epoch(algo, loader, epoch=1, num_steps=steps)
    loss = log.get("Loss", log.get("actor/loss", 0.0))
    if not np.isfinite(loss):
        raise QTransformerError(f"robomimic's loss is {loss} at step {progress.steps + steps}; lower lr=...")
    return Progress(
        steps=progress.steps + steps,
        train_seconds=progress.train_seconds + time.perf_counter() - began,
        cpu_seconds=progress.cpu_seconds + time.process_time() - cpu,
        loss=float(loss),
    )


def save(algo: Any, progress: Progress, run: Path) -> None:
    """Weights, optimisers and PyTorch's generator, which all that is random in a step draws from: a resumed run is the same run."""
    state = {
        "nets": algo.serialize(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers(algo)],
        "random": torch.get_rng_state(),
        "progress": progress._asdict(),
    }
    fresh = run / f"{STATE}.tmp"
    torch.save(state, fresh)
    os.replace(fresh, run / STATE)


def load(algo: Any, run: Path) -> Progress:
    state = torch.load(run / STATE, weights_only=True)
    algo.deserialize(state["nets"])
    for optimizer, content in zip(optimizers(algo), state["optimizers"], strict=True):
        optimizer.load_state_dict(content)
    torch.set_rng_state(state["random"])
    return Progress(**state["progress"])


def optimizers(algo: Any) -> list[torch.optim.Optimizer]:
    return [one for _, some in sorted(algo.optimizers.items()) for one in (some if isinstance(some, list) else [some])]


def act(actor: Peer, job: Mapping[str, Any]) -> str:
    """Outcome of each scene, "1" or "0", by the loop and the judge of `qtransformer eval`."""
    env, outcomes = EnvFactory(SIMULATOR, job["env"])(), ""
    with torch.inference_mode(), tqdm(total=job["episodes"], desc="evaluate", unit="episode") as bar:
        for seed in range(job["eval_seed"], job["eval_seed"] + job["episodes"]):
            outcomes += str(int(run_episode(env, actor, seed).success))
            bar.update()
            bar.set_postfix(success=f"{outcomes.count('1') / len(outcomes):.2f}", refresh=False)
    env.close()
    return outcomes


def sizes(algo: Any) -> dict[str, int]:
    """Parameters: of all networks but target copies, of the one that acts, and of that one's image encoders."""
    actor = algo.nets["policy" if "policy" in algo.nets else "actor"]
    encoders = [module for module in actor.modules() if isinstance(module, obs_core.VisualCore)]
    return {
        "parameters": sum(count(net) for name, net in algo.nets.items() if "target" not in name),
        "actor_parameters": count(actor),
        "encoder_parameters": sum(map(count, encoders)),
    }


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextlib.contextmanager
def quiet() -> Any:
    """robomimic prints its progress per epoch, and every epoch is a second here."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except QTransformerError as reason:
        raise SystemExit(f"robomimic_learner: {reason}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

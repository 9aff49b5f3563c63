"""robomimic's own BC and IQL as baselines: trained on a file of ours, judged on the scenes of `qtransformer eval`.

    python benchmarks/robomimic_baselines.py algo=bc data=data/low.hdf5 steps=2000 run=runs/theirs json=theirs.json

algo=bc|iql   data=FILE.hdf5   run=DIR   json=OUT.json
steps=N and minutes=M   stop after gradient steps, or after minutes of training, whichever comes first; both are recorded
filter=success|all      episodes trained on (bc: success, iql: all)
seed=0 threads=1 batch=128 lr=1e-4 (robomimic's own, for all its networks)
beta=1.0                temperature of IQL's advantages (robomimic's own; returns of at most 1 want a lower one: at 1 it clones all)
head=mse|gaussian|gmm   what the actor gives (bc: mse, as robomimic trains on machine-generated data; iql: gaussian)
encoder=ours|shallow    ours: the convolutions of our own encoder as a backbone of robomimic's; shallow: its ShallowConv
normalize=true          proprioception enters in standard deviations, as in our network; robomimic itself feeds metres and radians
episodes=300 eval_seed=1000 split=test    the scenes

Its code does the learning: its configuration, SequenceDataset, algorithms, crop randomiser and `run_epoch`, in the environment of
`make peers`. Ours does three things for it that its file format leaves open: next observations (our files store each frame once),
`dones` that mean "terminated" (bootstrapping goes on past a time limit, as it does in our learner), and, with normalize=true, the
scale of proprioception (robomimic 0.3.0 can normalise, but does so twice, and images before their channels are moved).
Its ResNet-18 needs torchvision, of which there is none here, and would be ten times our size. Seconds of training count its
`run_epoch` alone: neither reading the file nor evaluation; `cpu_seconds` is what other work on the machine does not stretch.

A killed run goes on when the same command is given again; with more steps or minutes a finished one is trained further.
"""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from qtransformer.cli.compose import suggest
from qtransformer.cli.factories import SIMULATOR, EnvFactory, observed_env_kwargs
from qtransformer.cli.settings import Split
from qtransformer.cli.training import logged_env_kwargs
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.files import write_json
from qtransformer.intervals import wilson
from qtransformer.run_guard import exclusive
from qtransformer_datasets import EpisodeDataset, open_episodes

ROOT = Path(__file__).parents[1]
THEIRS = ROOT / ".venv-robomimic" / "bin" / "python"
LEARNER = Path(__file__).with_name("robomimic_learner.py")
JOB, RESULT = "job.json", "result.json"
"""What is asked of the child process, and what it found; both in the folder of the run."""
_PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""
_MAY_CHANGE = {"steps", "minutes", "episodes", "eval_seed", "split", "json", "run", "threads"}
"""Settings that do not change what has been learned so far."""


class PeerAlgo(Enum):
    bc = "bc"
    iql = "iql"


class Filter(Enum):
    auto = "auto"
    success = "success"
    all = "all"


class Head(Enum):
    auto = "auto"
    mse = "mse"
    gaussian = "gaussian"
    gmm = "gmm"


class Encoder(Enum):
    ours = "ours"
    shallow = "shallow"


@dataclass(kw_only=True)
class Settings:
    algo: PeerAlgo = MISSING
    data: str = MISSING
    run: str = MISSING
    json: str = MISSING
    steps: int = 0
    minutes: float = 0.0
    filter: Filter = Filter.auto
    seed: int = 0
    threads: int = 1
    batch: int = 128
    lr: float = 1e-4
    beta: float = 1.0
    head: Head = Head.auto
    encoder: Encoder = Encoder.ours
    normalize: bool = True
    episodes: int = 300
    eval_seed: int = 1000
    split: Split = Split.test

    def to_dict(self) -> dict[str, Any]:
        return {key: value.value if isinstance(value, Enum) else value for key, value in asdict(self).items()}


def main(arguments: Sequence[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    try:
        settings = parse(arguments)
        if not THEIRS.exists():
            raise ConfigError(f"{THEIRS.relative_to(ROOT)} is missing; make it with 'make peers'")
        Path(settings.run).mkdir(parents=True, exist_ok=True)
        with exclusive(Path(settings.run)):
            job = make_job(settings)
            train_and_act(settings, job)
            result = summary(settings, json.loads((Path(settings.run) / RESULT).read_text()))
        check_scenes(result.pop("scenes"), job["env"], settings.eval_seed)
    except QTransformerError as error:
        print(f"robomimic_baselines: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("robomimic_baselines: interrupted; the same command goes on with it", file=sys.stderr)
        return 130
    Path(settings.json).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(settings.json), result)
    print(
        f"success {result['success']:.3f} [{result['low']:.3f}, {result['high']:.3f}] over {result['episodes']} "
        f"{settings.split.value} episodes; {result['steps']} steps in {result['train_seconds']:.0f} s"
    )
    return 0


def parse(arguments: Sequence[str]) -> Settings:
    """`key=value` words as settings; what depends on the algorithm is filled in."""
    known = list(Settings.__dataclass_fields__)
    for word in arguments:
        key, equals, _ = word.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"'{word}' is no setting written as key=value; {suggest(key, known)}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_dotlist(list(arguments)))
        settings = OmegaConf.to_object(merged)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key}=... is needed") from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    assert isinstance(settings, Settings)
    _fill_in(settings)
    return settings


def _fill_in(settings: Settings) -> None:
    is_bc = settings.algo is PeerAlgo.bc
    if settings.steps <= 0 and settings.minutes <= 0:
        raise ConfigError("nothing says when to stop; give steps=..., minutes=..., or both")
    for key in ("batch", "threads", "episodes", "lr", "beta"):
        if getattr(settings, key) <= 0:
            raise ConfigError(f"{key} expected above 0, found {getattr(settings, key)}")
    if settings.filter is Filter.auto:
        settings.filter = Filter.success if is_bc else Filter.all
    if settings.head is Head.auto:
        settings.head = Head.mse if is_bc else Head.gaussian
    if not is_bc and settings.head is Head.mse:
        raise ConfigError("algo=iql weighs likelihoods, which head=mse has none of; choose head=gaussian or head=gmm")


def make_job(settings: Settings) -> dict[str, Any]:
    """What the child is told, also kept in the run. Refuses a run that was made under other settings."""
    episodes = open_episodes(settings.data, "robomimic")
    logged_in = logged_env_kwargs(episodes)
    if logged_in is None:
        raise ConfigError(f"{settings.data} was not logged in {SIMULATOR}, so there are no scenes to act in; give one that was")
    env = {**logged_in, **observed_env_kwargs(episodes.observation_spec), "split": settings.split.value}
    job = {
        **settings.to_dict(),
        "data": str(Path(settings.data).resolve()),
        "fingerprint": EpisodeDataset(episodes).fingerprint,
        "env": json.loads(json.dumps(env)),
    }
    path = Path(settings.run) / JOB
    if path.exists():
        _check_same(json.loads(path.read_text()), job, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, job)
    return job


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    ours_to_change = {*_MAY_CHANGE, "env", "data"}  # another path to the same bytes is the same data
    changed = sorted(key for key in now if key not in ours_to_change and before.get(key) != now[key])
    if changed:
        told = ", ".join(f"{key}={before.get(key)} and now {now[key]}" for key in changed)
        raise ConfigError(f"{run} holds a run with {told}; give it another run=...")


def train_and_act(settings: Settings, job: Mapping[str, Any]) -> None:
    """Let robomimic's own environment do the job, in a process of its own."""
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets"))
    threads = {name: str(job["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [str(THEIRS), str(LEARNER), settings.run]
    preexec = _stop_with_parent if sys.platform == "linux" else None
    code = subprocess.run(command, env=os.environ | threads | {"PYTHONPATH": paths}, preexec_fn=preexec).returncode
    if code:
        raise QTransformerError(f"the training ended with exit code {code}, its reason is above; the same command goes on with it")


def _stop_with_parent() -> None:
    """A comparison that is killed must not leave a training behind that writes into a run which goes on elsewhere."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def summary(settings: Settings, found: Mapping[str, Any]) -> dict[str, Any]:
    """The result as it is written: the setting, what it cost, and how often it succeeded."""
    outcomes = str(found["outcomes"])
    low, high = wilson(outcomes.count("1"), len(outcomes))
    told = settings.to_dict()
    return {
        **{key: told[key] for key in ("algo", "filter", "seed", "batch", "lr", "beta", "head", "encoder", "normalize", "split")},
        **{key: value for key, value in found.items() if key != "outcomes"},
        "success": outcomes.count("1") / len(outcomes),
        "low": low,
        "high": high,
        "episodes": len(outcomes),
        "first_seed": settings.eval_seed,
        "outcomes": outcomes,
    }


def check_scenes(theirs: Sequence[str], env_kwargs: Mapping[str, Any], first_seed: int) -> None:
    """What the peer saw first in each scene must be what `qtransformer eval` shows in it, to the last bit."""
    env = EnvFactory(SIMULATOR, env_kwargs)()
    try:
        for index, seen in enumerate(theirs):
            observation, _ = env.reset(seed=first_seed + index)
            if digest(observation) != seen:
                raise QTransformerError(f"scene {first_seed + index} began differently for robomimic; nothing was compared")
    finally:
        env.close()


def digest(observation: Mapping[str, Any]) -> str:
    """SHA-256 of what an observation shows."""
    content = hashlib.sha256(observation["proprio"].tobytes())
    for camera, image in sorted(observation["images"].items()):
        content.update(camera.encode() + image.tobytes())
    return content.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

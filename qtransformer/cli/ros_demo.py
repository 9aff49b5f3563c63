"""`qtransformer ros-demo`: a trained policy as a ROS 2 node on the simulated arm, in processes of their own, and what came of it.

The same programs as `launch/sim.launch.py` starts, for those who have no ROS on their machine.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli.evaluate import env_factory, evaluate_in_parallel, load_policy
from qtransformer.cli.factories import run_directory
from qtransformer.cli.ros_doctor import BOTH_WAYS
from qtransformer.cli.settings import EvalSettings, RosDemoSettings
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.files import fingerprint, write_json, write_text
from qtransformer.intervals import wilson
from qtransformer_datasets import HDF5Writer, open_episodes
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.policy.matching import matched
from qtransformer_ros.recorder.episode_counts import FILE as EPISODES
from qtransformer_ros.recorder.episode_counts import EpisodeCounts

STOP_S = 20.0
"""How long a program may take to end after SIGINT [s]."""
STEP_M, STEP_RAD = 0.1, 0.5
"""Limits of one control step that leave the simulated arm's own actions as they are."""
ASKED = "asked.json"
"""What the episodes of a folder are of."""
PROGRAMS = {
    "qtransformer_sim": "qtransformer_ros.nodes.sim_node",
    "qtransformer_policy": "qtransformer_ros.nodes.policy_node",
    "qtransformer_recorder": "qtransformer_ros.nodes.recorder_node",
    "qtransformer_episodes": "qtransformer_ros.nodes.episodes_node",
}
"""Node to the module that is it, in the order of starting."""


def run(settings: RosDemoSettings) -> int:
    out = Path(settings.out) if settings.out else run_directory(Path(settings.run)) / "ros"
    settings = replace(settings, run=str(resolve_checkpoint(settings.run)))  # the very one, should the run be training still
    contract = settings.contract or str(TopicContract.shipped("simulated_kuka"))
    parameters = node_parameters(settings, contract, out)
    if settings.dry_run:
        print(yaml.safe_dump(parameters, sort_keys=False))
        return 0
    if find_spec("rclpy") is None:
        raise ConfigError(f"ros-demo needs ROS 2, and this Python cannot import rclpy: {BOTH_WAYS}")
    keep_apart(out, settings)
    write_text(out / "parameters.yaml", yaml.safe_dump(parameters, sort_keys=False))
    act(out, settings.domain)
    outcomes = outcomes_of(out, range(settings.seed, settings.seed + settings.episodes))
    print(success(outcomes))
    summary = {"episodes": len(outcomes), "success": sum(outcomes.values()) / len(outcomes)}
    summary |= dataset(out, contract)
    if settings.compare:
        summary |= comparison(settings, outcomes)
    write_json(out / "summary.json", summary)
    return 0


def keep_apart(out: Path, settings: RosDemoSettings) -> None:
    """What is in the folder is not acted again, and all its bags become one dataset: they are of one checkpoint and one split.

    Raises:
        ConfigError: episodes of another are there, or of who knows which.
    """
    path, asked = out / ASKED, {"checkpoint": fingerprint(Path(settings.run)), "split": settings.split.value}
    known = json.loads(path.read_text()) if path.exists() else {} if (out / EPISODES).exists() else asked
    for name, value in asked.items():
        if known.get(name) != value:
            found = known.get(name, "unknown")
            raise ConfigError(
                f"{out} holds episodes of another {name} (there {found}, asked for {value}); choose another out=... or delete it"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, asked)


def outcomes_of(out: Path, seeds: Container[int]) -> dict[int, bool]:
    """Whether the episodes of these seeds succeeded; the folder may hold more."""
    outcomes = EpisodeCounts.open(out / EPISODES).outcomes
    return {seed: own.outcome == "success" for seed, own in outcomes.items() if seed in seeds}


def node_parameters(settings: RosDemoSettings, contract: str, out: Path) -> dict[str, Any]:
    """A parameter file for all nodes.

    Raises:
        SpecMismatchError: the checkpoint is of another robot than the contract's; the node would refuse it, too, but in its log.
    """
    asked = _evaluation(settings)
    policy = load_policy(asked)
    assert policy
    matched(TopicContract.load(contract), policy.action_spec, policy.observation_spec)
    kwargs = {"arm": "kuka", "max_steps": 24, "num_objects": 3} | dict(env_factory(asked, policy).kwargs)
    spec = policy.observation_spec
    wanted = {
        "qtransformer_sim": {
            "arm": kwargs["arm"],
            "cameras": [f"{name}:{h}x{w}" for name, (h, w, _) in spec.cameras.items()],
            "control_hz": spec.control_hz,
            "max_steps": kwargs["max_steps"],
            "num_objects": kwargs["num_objects"],
            "split": settings.split.value,
            "lockstep": True,
        },
        "qtransformer_policy": {
            "checkpoint": settings.run,
            "contract": contract,
            "output": "as_contract",  # velocities of the tool, as was logged; the arm's own controller solves for its joints
            "lockstep": True,
            "max_step_m": STEP_M,
            "max_step_rad": STEP_RAD,
        },
        "qtransformer_recorder": {"contract": contract, "folder": str(out / "bags")},
        "qtransformer_episodes": {
            "contract": contract,
            "episodes": settings.episodes,
            "first_seed": settings.seed,
            "folder": str(out),
        },
    }
    return {node: {"ros__parameters": values} for node, values in wanted.items()}


def act(out: Path, domain: int) -> None:
    """Start all, wait until the episodes are done, stop all. Every program logs to a file of its own but the one that counts."""
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    *others, last = PROGRAMS
    with _running(others, out, environment) as processes:
        counting = subprocess.Popen(_command(PROGRAMS[last], out), env=environment)
        try:
            while counting.poll() is None:
                _check(processes, out)
                try:
                    counting.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            counting.send_signal(signal.SIGINT)
            counting.wait(STOP_S)
            raise
    if counting.returncode:
        raise QTransformerError(f"the episodes ended with code {counting.returncode}; see the logs {out}/*.log")


@contextmanager
def _running(nodes: list[str], out: Path, environment: Mapping[str, str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    processes = {}
    try:
        for node in nodes:
            with (out / f"{node}.log").open("wb") as log:
                # Ctrl-C goes to the whole foreground group: these are stopped in order, after the one that counts.
                options: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
                processes[node] = subprocess.Popen(_command(PROGRAMS[node], out), env=environment, **options)
        yield processes
    finally:
        for process in reversed(processes.values()):
            process.send_signal(signal.SIGINT)
        for process in processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _command(module: str, out: Path) -> list[str]:
    start = f"import sys; from {module} import main; sys.exit(main())"  # as its console script does, wherever that may be
    return [sys.executable, "-c", start, "--ros-args", "--params-file", str(out / "parameters.yaml")]


def _check(processes: Mapping[str, subprocess.Popen[bytes]], out: Path) -> None:
    for node, process in processes.items():
        if process.poll() is not None:
            last = (out / f"{node}.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise QTransformerError(f"{node} ended with code {process.returncode}: {' '.join(last)}; see the logs {out}/*.log")


def success(outcomes: Mapping[int, bool]) -> str:
    low, high = wilson(sum(outcomes.values()), len(outcomes))
    rate = sum(outcomes.values()) / len(outcomes)
    return f"over ROS 2: success {rate:.2f} [{low:.2f}, {high:.2f}] in {len(outcomes)} episodes"


def dataset(out: Path, contract: str) -> dict[str, Any]:
    """Write the bags as a dataset.

    Raises:
        DatasetError: the observations of a bag are not those that the policy said it saw.
    """
    source, path = open_episodes(out / "bags", contract=contract), out / "episodes.hdf5"
    path.unlink(missing_ok=True)
    with HDF5Writer.open_or_resume(path, source.action_spec, source.observation_spec, source.attributes) as writer:
        missing = range(len(writer), len(source))  # bags are read in the order of their numbers: a killed one goes on
        for index in tqdm(missing, desc="bags to dataset", unit="episode", disable=None):
            writer.append(source.read(index))
    print(f"{path}: {len(source)} episodes of {out / 'bags'}")
    return {"dataset": str(path), "dataset_episodes": len(source)}


def comparison(settings: RosDemoSettings, outcomes: Mapping[int, bool]) -> dict[str, Any]:
    """The same seeds by `qtransformer eval`, in this process."""
    asked = _evaluation(settings)
    policy = load_policy(asked)
    evaluation = evaluate_in_parallel(asked, env_factory(asked, policy), policy, "without ROS")
    same = [r.seed for r in evaluation.results if outcomes.get(r.seed) == r.success]
    other = sorted(set(outcomes) - set(same))
    print(f"same outcome as `qtransformer eval` in {len(same)} of {len(outcomes)} scenes" + (f"; not in {other}" if other else ""))
    return {"same_outcome": len(same), "other_outcome": other}


def _evaluation(settings: RosDemoSettings) -> EvalSettings:
    # On the processor, as the node: another device rounds otherwise, and a tie may fall to the other side.
    return EvalSettings(run=settings.run, episodes=settings.episodes, seed=settings.seed, split=settings.split, device="cpu")

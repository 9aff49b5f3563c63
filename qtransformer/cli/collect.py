"""`qtransformer collect`: a noisy expert's episodes, on all cores, into one HDF5 file."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import h5py
from tqdm import tqdm

from qtransformer.checkpoint import versions
from qtransformer.cli.compose import UsageError, check_choice
from qtransformer.cli.factories import MAX_EPISODES, SIMULATOR, CollectingWorker, EnvFactory, simulator
from qtransformer.cli.settings import CollectSettings
from qtransformer.errors import ConfigError
from qtransformer.intervals import wilson
from qtransformer.parallel import default_workers, parallel_map
from qtransformer_datasets import HDF5Episodes, HDF5Writer


class Collected(NamedTuple):
    """What a file holds."""

    episodes: int
    steps: int
    successes: int

    def __str__(self) -> str:
        low, high = wilson(self.successes, self.episodes)
        rate = self.successes / self.episodes
        return f"{self.episodes} episodes, {self.steps} steps, success {rate:.3f} [{low:.3f}, {high:.3f}]"


def run(settings: CollectSettings) -> int:
    out, began = Path(settings.out), perf_counter()
    attributes = provenance(settings)
    if out.exists():
        refuse_other_settings(out, attributes)
        print(f"{out} is complete already: {count(out)}")
        return 0
    if settings.dry_run:
        workers = settings.workers or default_workers()
        print(f"would collect {settings.episodes} episodes of recipe {settings.recipe} into {out} with {workers} workers")
        return 0
    collect(settings, attributes)
    seconds, size = perf_counter() - began, out.stat().st_size / 1e6
    print(f"{out}: {count(out)}, {seconds:.0f} s, {size:.1f} MB")
    return 0


def collect(settings: CollectSettings, attributes: dict[str, Any]) -> None:
    """Log what is missing of the episodes, and publish the file."""
    factory = EnvFactory(SIMULATOR, attributes["env_kwargs"])
    worker = CollectingWorker(factory, settings.recipe, settings.seed)
    env = factory()
    env.close()
    with (
        HDF5Writer.open_or_resume(settings.out, env.action_spec, env.observation_spec, attributes) as writer,
        tqdm(total=settings.episodes, initial=len(writer), desc=f"collect {settings.recipe}", unit="episode") as bar,
    ):
        successes, missing = 0, range(len(writer), settings.episodes)
        for done, episode in enumerate(parallel_map(worker, missing, settings.workers), start=1):
            writer.append(episode)
            successes += episode.success
            bar.set_postfix(success=f"{successes / done:.2f}", refresh=False)
            bar.update()


def provenance(settings: CollectSettings) -> dict[str, Any]:
    """The attributes of the file: all that its episodes follow from, and what they were made with."""
    sim = simulator()
    check_choice("recipe", settings.recipe, list(sim.RECIPES))
    check_choice("task", settings.task, list(sim.TASKS))
    check_choice("arm", settings.arm, list(sim.ARMS))
    for camera in settings.cameras:
        check_choice("cameras", camera, list(sim.CAMERAS))
    _check_ranges(settings)
    env_kwargs = {
        "task": settings.task,
        "arm": settings.arm,
        "cameras": {name: [settings.image_size, settings.image_size] for name in settings.cameras},
        "split": settings.split.value,
        "max_steps": settings.max_steps,
        "control_hz": settings.control_hz,
        "num_objects": settings.num_objects,
    }
    return {
        "recipe": settings.recipe,
        "seed": settings.seed,
        "episodes": settings.episodes,
        "env_name": SIMULATOR,
        "env_kwargs": env_kwargs,
        "versions": versions(),
    }


def count(path: Path) -> Collected:
    """Episodes, steps and successes of a finished file, without its images."""
    source = HDF5Episodes(path)
    return Collected(len(source), sum(source.lengths), _successes(path, source.names))


def refuse_other_settings(path: Path, attributes: dict[str, Any]) -> None:
    """Raise unless the file was collected under the same settings. Another version's file is still that file."""
    found = HDF5Episodes(path).attributes
    for name in attributes.keys() - {"versions"}:
        if found.get(name) != attributes[name]:
            raise ConfigError(
                f"{path} exists and was collected with other settings ({name}: there {found.get(name)}, asked for "
                f"{attributes[name]}); choose another out=... or delete it"
            )


def _successes(path: Path, names: Sequence[str]) -> int:
    with h5py.File(path, "r") as file:
        return sum(bool(file[f"data/{name}"].attrs["success"]) for name in names)


def _check_ranges(settings: CollectSettings) -> None:
    bounds = {"episodes": (1, MAX_EPISODES), "seed": (0, 10**6), "image_size": (8, 4096), "num_objects": (1, 20)}
    bounds |= {"max_steps": (1, 10**6), "control_hz": (0.1, 120), "workers": (0, 10**4)}  # physics makes 120 steps a second
    for name, (low, high) in bounds.items():
        if not low <= getattr(settings, name) <= high:
            raise UsageError(f"{name}={getattr(settings, name)}: expected {low} to {high}")

"""`qtransformer eval`: matched scenes on all cores, or logs alone where dataset=... is given."""

import warnings
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.checks import check_specs
from qtransformer.cli import log_evaluation
from qtransformer.cli.compose import UsageError
from qtransformer.cli.factories import (
    SIMULATOR,
    EnvFactory,
    EvaluatingWorker,
    ExpertMaker,
    PolicyMaker,
    RandomMaker,
    observed_env_kwargs,
    run_directory,
)
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.settings import ActorKind, EvalSettings
from qtransformer.config import to_dict
from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.evaluate import Evaluation
from qtransformer.files import write_json
from qtransformer.parallel import default_workers, parallel_map
from qtransformer.policy import Policy

FROM_LOGS = ("critic_data", "critic_steps", "fqe_steps", "select")
IN_SCENES = ("episodes", "seed", "split", "env", "env_kwargs", "videos", "workers", "acting")
"""Settings that one way of judging reads and the other does not."""


def run(settings: EvalSettings) -> int:
    refuse_unread(settings)
    if settings.dataset:
        return log_evaluation.run(settings)
    if not isinstance(settings.run, str):
        raise UsageError("run=[...]: several runs are judged together only from logs; name them with dataset=...")
    settings = pinned(settings)
    policy = load_policy(settings)
    env = fitting_env(settings, policy)
    if settings.dry_run:
        workers = settings.workers or default_workers()
        print(f"would act {settings.episodes} {settings.split.value} episodes of {settings.actor.value} on {workers} workers")
        return 0
    evaluation = evaluate_in_parallel(settings, env, policy)
    told = how_it_acted(policy)
    # First: it must not be lost with a file that cannot be written.
    print(success_line(evaluation, scenes(settings), told["not_as_trained"]))
    if settings.json:
        path = Path(settings.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**told, **evaluation.to_dict()})
    if settings.videos:
        film_episodes(settings, env, policy)
    return 0


def refuse_unread(settings: EvalSettings) -> None:
    """Raises UsageError for a setting of the other way of judging: who says it means that one."""
    told = (
        "no scene is acted where dataset=... judges from logs; leave one of the two out"
        if settings.dataset
        else "logs are judged with it, and no dataset=... names any; say which, or leave it out"
    )
    for name in IN_SCENES if settings.dataset else FROM_LOGS:
        if getattr(settings, name) != getattr(EvalSettings(), name):
            raise UsageError(f"{name}=...: {told}")


def pinned(settings: EvalSettings) -> EvalSettings:
    """The same with the very checkpoint that run=... means now: workers that looked again later would find another in a run that is
    still training."""
    if settings.actor is not ActorKind.policy or not settings.run:
        return settings
    return replace(settings, run=str(resolve_checkpoint(settings.run)))


def evaluate_in_parallel(settings: EvalSettings, env: EnvFactory, policy: Policy | None, label: str = "") -> Evaluation:
    """One episode for each of the seeds `seed + i`; the result does not depend on the number of workers."""
    began = perf_counter()
    discount = policy.config.targets.discount if policy else 1.0
    worker = EvaluatingWorker(env, _actor(settings), discount)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    results = []
    with tqdm(total=len(seeds), desc=f"evaluate {label or settings.actor.value}", unit="episode") as bar:
        for result in parallel_map(worker, seeds, settings.workers):
            results.append(result)
            bar.set_postfix(success=f"{sum(r.success for r in results) / len(results):.2f}", refresh=False)
            bar.update()
    return Evaluation(results=tuple(results), seconds=perf_counter() - began)


def success_line(evaluation: Evaluation, scenes: str = "held-out", not_as_trained: str = "") -> str:
    low, high = evaluation.interval
    said, how = f"{scenes} " if scenes else "", f", acting by {not_as_trained}" if not_as_trained else ""
    return f"success {evaluation.success:.2f} [{low:.2f}, {high:.2f}] over {len(evaluation.results)} {said}episodes{how}"


def how_it_acted(policy: Policy | None) -> dict[str, Any]:
    """What is recorded with a result: the settings that the policy acted by, and in words those that are not its training's."""
    acting = policy.acting if policy else None
    return {"acting": acting and to_dict(acting), "not_as_trained": policy.not_as_trained if policy else ""}


def scenes(settings: EvalSettings) -> str:
    """What is known of the objects acted on: `held-out` in the simulator, unless the run's own data were logged with them; of
    another environment's nothing."""
    if settings.env:
        return ""
    trained_on = {str(_logged_env(settings).get("split", "train")), "train"}
    return "train" if settings.split.value in trained_on else "held-out"


def env_factory(settings: EvalSettings, policy: Policy | None) -> EnvFactory:
    """The environment asked for, else the simulator as the run's data saw it."""
    if settings.env:
        return EnvFactory(settings.env, settings.env_kwargs)
    kwargs = _logged_env(settings) | (observed_env_kwargs(policy.observation_spec) if policy else {})
    return EnvFactory(SIMULATOR, kwargs | {"split": settings.split.value} | settings.env_kwargs)


def _logged_env(settings: EvalSettings) -> dict[str, Any]:
    """Arguments of the environment that the run's data were logged in; nothing where none is known."""
    directory = run_directory(Path(settings.run))
    return dict(RunConfig.load(directory).env or {}) if settings.run and RunConfig.exists(directory) else {}


def fitting_env(settings: EvalSettings, policy: Policy | None) -> EnvFactory:
    """The environment to act in, known to be one that the policy was made for; with a warning where its scenes are guessed."""
    env = env_factory(settings, policy)
    _check_fit(env, policy, settings.run)
    if policy and not (settings.env or settings.env_kwargs or _logged_env(settings)):
        warnings.warn(
            f"{settings.run}: no config.yaml of a run tells the environment of its data: acting in the simulator's default one, "
            "whose objects, arm and time limit may differ; say them with env_kwargs={num_objects: ...}",
            stacklevel=2,
        )
    return env


def _check_fit(factory: EnvFactory, policy: Policy | None, run: str) -> None:
    """Refuse an environment the policy was not made for, before anything runs."""
    try:
        env = factory()
    except ConfigError as error:
        if policy is None or factory.target != SIMULATOR:
            raise
        raise SpecMismatchError(
            f"{run} is no policy of the simulator's environment ({error}); act in its own with env=your.module:make_env, or judge "
            "it from logs with dataset=..."
        ) from error
    try:
        for name in ("action_spec", "observation_spec"):
            if not hasattr(env, name):
                raise ConfigError(
                    f"env={factory.target}: expected a Gymnasium environment with `action_spec` and `observation_spec` "
                    f"(qtransformer.types), found none called {name}; README.md shows how one is written"
                )
        if policy:
            check_specs(policy.action_spec, policy.observation_spec, env.action_spec, env.observation_spec, run)
    finally:
        env.close()


def film_episodes(settings: EvalSettings, env: EnvFactory, policy: Policy | None, label: str = "") -> None:
    """Film the first episodes of the evaluation into videos/ of the run, or of the folder of the result."""
    from qtransformer.report import film  # slow to import, and only needed here

    world = env()
    try:
        actor = policy or _actor(settings)(world)(settings.seed)
        seeds = range(settings.seed, settings.seed + settings.videos)
        told = ", ".join(filter(None, (label or settings.actor.value, how_it_acted(policy)["not_as_trained"])))
        film(world, actor, seeds, _video_directory(settings), told)
    finally:
        world.close()


def _video_directory(settings: EvalSettings) -> Path:
    return (run_directory(Path(settings.run)) if settings.run else Path(settings.json).parent) / "videos"


def load_policy(settings: EvalSettings) -> Policy | None:
    if settings.actor is not ActorKind.policy:
        if settings.acting != ActingConfig():
            raise UsageError(f"acting: actor={settings.actor.value} has no such settings; leave them out, or let the policy act")
        return None
    if not settings.run:
        raise UsageError("eval needs run=... (only actor=expert and actor=random go without)")
    return Policy.from_checkpoint(settings.run, settings.device, settings.acting)


def _actor(settings: EvalSettings) -> PolicyMaker | ExpertMaker | RandomMaker:
    makers = {ActorKind.expert: ExpertMaker(), ActorKind.random: RandomMaker()}
    return makers.get(settings.actor) or PolicyMaker(settings.run, settings.device, settings.acting)

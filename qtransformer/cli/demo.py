"""`qtransformer demo`: the main job from nothing. Every stage is skipped whose result is there, so a killed one goes on."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qtransformer.cli import collect
from qtransformer.cli.evaluate import (
    env_factory,
    evaluate_in_parallel,
    film_episodes,
    fitting_env,
    load_policy,
    pinned,
    success_line,
)
from qtransformer.cli.settings import ActorKind, CollectSettings, DemoSettings, EvalSettings
from qtransformer.cli.side_by_side import Training, train_side_by_side
from qtransformer.errors import ConfigError
from qtransformer.evaluate import Evaluation
from qtransformer.files import fingerprint, write_json
from qtransformer.intervals import wilson
from qtransformer.metrics import Stopwatch, read_jsonl
from qtransformer.parallel import default_workers

WARM_UP_STEPS = 1200
"""Gradient steps of the cloning that both contestants start from."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """An actor of the comparison."""

    name: str
    label: str
    kind: ActorKind
    run: Path


def run(settings: DemoSettings) -> int:
    out, watch = Path(settings.out), Stopwatch(torch.device("cpu"))
    if settings.dry_run:
        print(plan(settings))
        return 0
    with watch.section("collect"):
        collect.run(_collection(settings))
        write_data_summary(Path(settings.data), out)
    with watch.section("train"):
        train_side_by_side([warm_up(settings)])
        train_side_by_side(trainings(settings), meanwhile=lambda ended: evaluate_the_others(ended, settings))
    with watch.section("evaluate"):
        evaluations = {c.name: evaluate_once(c, settings, settings.workers) for c in contestants(out)}
    with watch.section("film and report"):
        report = film_and_report(settings)
    print(summary(settings, evaluations, watch, report))
    print(success_line(evaluations["qtransformer"]))
    return 0


def warm_up(settings: DemoSettings) -> Training:
    """A short cloning that both contestants start from: eyes first. Value targets alone are too noisy to learn to see from."""
    steps = settings.steps or WARM_UP_STEPS
    batches = ("optim.batch_segments=64", "optim.segment_steps=2")  # no lookahead to pay for: as many scenes as possible
    own = (f"threads={default_workers()}", f"steps={steps}", "eval_episodes=0", "optim.learning_rate=2e-3", *batches)
    arguments = (*_shared(settings), "algo=bc", *own)
    return Training("warm-up", Path(settings.out) / "warmup", arguments)


def trainings(settings: DemoSettings) -> list[Training]:
    """Ours and behaviour cloning: the same start, data, preset, seed and number of steps, half the cores each."""
    out = Path(settings.out)
    shared = [*_shared(settings), f"threads={max(1, default_workers() // 2)}", f"init={warm_up(settings).run}"]
    shared += [f"steps={settings.steps}"] if settings.steps else []
    return [
        Training("Q-Transformer", out, (*shared, "algo=q")),
        Training("cloning", out / "baselines" / "bc", (*shared, "algo=bc")),
    ]


def _shared(settings: DemoSettings) -> list[str]:
    return [f"dataset={settings.data}", "preset=demo", f"seed={settings.seed}", f"device={settings.device}"]


def contestants(out: Path) -> list[Contestant]:
    """Who is compared. The expert and the random actor act in the run's environment, too."""
    return [
        Contestant("qtransformer", "Q-Transformer", ActorKind.policy, out),
        Contestant("bc", "behaviour cloning", ActorKind.policy, out / "baselines" / "bc"),
        Contestant("expert", "scripted expert", ActorKind.expert, out),
        Contestant("random", "random actions", ActorKind.random, out),
    ]


def evaluate_the_others(ended: Training, settings: DemoSettings) -> None:
    """All but the policy that still trains, by the half of the cores that a training has left."""
    for contestant in contestants(Path(settings.out)):
        if contestant.kind is not ActorKind.policy or contestant.run == ended.run:
            evaluate_once(contestant, settings, max(1, (settings.workers or default_workers()) // 2))


def evaluate_once(contestant: Contestant, settings: DemoSettings, workers: int) -> Evaluation:
    """Evaluate on the test objects, or take the result that the same question has had before."""
    path = Path(settings.out) / "evaluations" / f"{contestant.name}.json"
    asked = replace(_evaluation_settings(contestant, settings), workers=workers)
    question = {
        "checkpoint": fingerprint(Path(asked.run)) if contestant.kind is ActorKind.policy else "",
        "seed": asked.seed,
        "split": asked.split.value,
        "episodes": asked.episodes,
    }
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("question") == question:
        return Evaluation.from_dict(known)
    policy = load_policy(asked)
    env = fitting_env(asked, policy)
    evaluation = evaluate_in_parallel(asked, env, policy, contestant.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"name": contestant.name, "label": contestant.label, "question": question, **evaluation.to_dict()})
    return evaluation


def film_and_report(settings: DemoSettings) -> Path:
    """Our own policy's first test episodes on film, and the page that tells it all."""
    from qtransformer.report import build_report  # slow to import, and only needed here

    out = Path(settings.out)
    ours = contestants(out)[0]
    asked = _evaluation_settings(ours, settings)
    if len(list((out / "videos").glob("*.mp4"))) < settings.videos:
        policy = load_policy(asked)
        film_episodes(asked, env_factory(asked, policy), policy, ours.label)
    return build_report(out)


def write_data_summary(data: Path, out: Path) -> None:
    """How often the data itself succeeds, for the report.

    Raises:
        ConfigError: what is in `out` was made of other data.
    """
    found = collect.count(data)
    low, high = wilson(found.successes, found.episodes)
    numbers = {"episodes": found.episodes, "steps": found.steps, "success": found.successes / found.episodes}
    out.mkdir(parents=True, exist_ok=True)
    path, told = out / "data.json", {**numbers, "low": low, "high": high}
    known = json.loads(path.read_text()) if path.exists() else told
    if known != told:
        raise ConfigError(
            f"{out} was made of {known['episodes']} episodes with {known['steps']} steps, {data} holds {found.episodes} with "
            f"{found.steps}; choose another out=... or delete it"
        )
    write_json(path, told)


def summary(settings: DemoSettings, evaluations: dict[str, Evaluation], watch: Stopwatch, report: Path) -> str:
    """The table at the end."""
    labels = {c.name: c.label for c in contestants(Path(settings.out))}
    data = json.loads((Path(settings.out) / "data.json").read_text())
    rows = [(labels[name], e.success, *e.interval) for name, e in evaluations.items()]
    rows.append(("data", data["success"], data["low"], data["high"]))
    times = [f"{name} {seconds:.0f} s" for name, seconds in watch.seconds.items()]
    return "\n".join(
        [
            "",
            f"{'':20}success   95% interval",
            *(f"{label:20}{success:7.2f}   [{low:.2f}, {high:.2f}]" for label, success, low, high in rows),
            "",
            f"bootstrap above the floor in {_bootstrap_share(Path(settings.out))} of targets",
            f"time: {', '.join(times)}; {sum(watch.seconds.values()):.0f} s in all",
            f"report: {report}",
        ]
    )


def plan(settings: DemoSettings) -> str:
    lines = [
        f"would collect {settings.episodes} episodes of recipe {settings.recipe} into {settings.data} (or take them from there)"
    ]
    lines += [f"would train {t.name} into {t.run}: {' '.join(t.arguments)}" for t in [warm_up(settings), *trainings(settings)]]
    lines += [f"would evaluate {c.label} in {settings.eval_episodes} episodes" for c in contestants(Path(settings.out))]
    return "\n".join([*lines, f"would film {settings.videos} episodes and write {settings.out}/report.html"])


def _collection(settings: DemoSettings) -> CollectSettings:
    shared = {key: getattr(settings, key) for key in ("episodes", "recipe", "seed", "workers")}
    return CollectSettings(out=settings.data, **shared)


def _evaluation_settings(contestant: Contestant, settings: DemoSettings) -> EvalSettings:
    return pinned(
        EvalSettings(
            run=str(contestant.run),
            actor=contestant.kind,
            episodes=settings.eval_episodes,
            videos=settings.videos,
            device=settings.device,
        )
    )


def _bootstrap_share(out: Path) -> str:
    shares = [line["bootstrap_exceeds_floor"] for line in read_jsonl(out / "metrics.jsonl") if "bootstrap_exceeds_floor" in line]
    return f"{100 * shares[-1]:.0f}%" if shares else "an unknown share"

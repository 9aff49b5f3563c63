"""`qtransformer calibrate`: the Q-value below which a policy should stop, and what that costs and catches on other objects."""

from dataclasses import replace
from pathlib import Path

from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli.evaluate import evaluate_in_parallel, fitting_env, how_it_acted, load_policy
from qtransformer.cli.factories import run_directory
from qtransformer.cli.settings import CalibrateSettings, EvalSettings, Split
from qtransformer.evaluate import Evaluation
from qtransformer.files import write_json
from qtransformer.policy import Policy
from qtransformer.value_threshold import calibrate_threshold, stops

FILE = "value_threshold.json"


def run(settings: CalibrateSettings) -> int:
    path = run_directory(Path(settings.run)) / FILE
    if settings.dry_run:
        print(f"would act {settings.episodes} validation and {settings.episodes} test episodes, then write {path}")
        return 0
    settings = replace(settings, run=str(resolve_checkpoint(settings.run)))  # both times the same, though the run may go on
    policy = load_policy(_asked(settings, Split.validation, settings.seed))
    calibration = _act(settings, policy, Split.validation, settings.seed)
    threshold = calibrate_threshold(calibration.results, settings.false_stops)
    measured = stops(_act(settings, policy, Split.test, settings.seed + settings.episodes).results, threshold)
    found = {
        "checkpoint": Path(settings.run).name,
        **how_it_acted(policy),
        "asked_false_stops": settings.false_stops,
        "calibrated_on": stops(calibration.results, threshold).to_dict(),
        "measured_on_test_objects": measured.to_dict(),
        "threshold": threshold,
    }
    write_json(path, found)
    print(f"on the validation objects it was calibrated on: {stops(calibration.results, threshold)}")
    print(f"on test objects: {measured}")
    how = found["not_as_trained"] and f", acting by {found['not_as_trained']}"
    print(f"threshold {threshold:.4f} for {settings.false_stops:g} false stops{how}: {path}")
    return 0


def _asked(settings: CalibrateSettings, split: Split, seed: int) -> EvalSettings:
    shared = {name: getattr(settings, name) for name in ("run", "episodes", "workers", "device", "acting")}
    return EvalSettings(split=split, seed=seed, **shared)


def _act(settings: CalibrateSettings, policy: Policy | None, split: Split, seed: int) -> Evaluation:
    asked = _asked(settings, split, seed)
    env = fitting_env(asked, policy)
    return evaluate_in_parallel(asked, env, policy, split.value)

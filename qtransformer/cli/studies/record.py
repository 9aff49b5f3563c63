"""What is kept of a cell that ended: its row, and its learning curve thinned."""

import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qtransformer.cli import collect
from qtransformer.cli.side_by_side import Training
from qtransformer.cli.studies.cells import DATA_FOLDER, RUNS_FOLDER, Cell
from qtransformer.cli.studies.results import CURVE_FIELDS, METRICS
from qtransformer.files import write_text
from qtransformer.metrics import read_jsonl

CURVE_POINTS = 40
COMMIT = "commit"


def result_row(cell: Cell, training: Training, data: Path, judged: Mapping[str, Any], version: str) -> dict[str, object]:
    """The cell's line of `cells.csv`; `version` is the code's."""
    lines, config, found = read_jsonl(training.run / "metrics.jsonl"), cell.config, collect.count(data)
    expected = [result["values"][0] for result in judged["results"] if result["values"]]
    return {
        "cell": cell.identity,
        "data": f"{cell.data}, seed {cell.seed}",
        "data_success": f"{found.successes / found.episodes:.4f}",
        "overrides": cell.differences,
        "seed": cell.seed,
        "algo": config["algo"],
        "value": config["value"]["kind"],
        "steps": cell.steps,
        "train_seconds": f"{training_seconds(lines, config):.1f}",
        "split": cell.split,
        "first_scene": cell.first_scene,
        "episodes": judged["episodes"],
        "success": f"{judged['success']:.4f}",
        "outcomes": "".join("01"[result["success"]] for result in judged["results"]),
        "mean_steps": f"{judged['mean_steps']:.2f}",
        "q_start": f"{sum(expected) / len(expected):.4f}" if expected else "",
        "date": date.today().isoformat(),
        "commit": version,
        "machine": machine(),
        "command": command(cell, training),
    }


def probe_row(cell: Cell, episodes: str, probe: Mapping[str, float], version: str) -> dict[str, object]:
    """The cell's line of `probes.csv`; `episodes` are those it was probed on."""
    numbers = {name: f"{value:.4f}" for name, value in probe.items()}
    return {"cell": cell.identity, "data": episodes, **numbers, "date": date.today().isoformat(), "commit": version}


def command(cell: Cell, training: Training) -> str:
    """The training as a user would start it, in the usual folders: where this one ran is nobody's business."""
    device = next(word for word in training.arguments if word.startswith("device=")).removeprefix("device=")
    words = cell.train_arguments(Path(DATA_FOLDER), device)
    return shlex.join(["qtransformer", "train", *words, f"run={RUNS_FOLDER}/{cell.run_name}"])


def training_seconds(lines: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> float:
    """Wall-clock of the gradient steps, of which `train` keeps the pace; interruptions, validation and saving are not in it."""
    transitions, seconds, before = config["optim"]["batch_segments"] * config["optim"]["segment_steps"], 0.0, 0
    for line in lines:
        if "samples_per_second" in line:
            seconds += (line["step"] - before) * transitions / line["samples_per_second"]
            before = line["step"]
    return seconds


def curve_rows(identity: str, run: Path) -> list[dict[str, object]]:
    """The cell's lines of `curves.csv`: every validation, and of the other steps as many as there is room for."""
    merged: dict[int, dict[str, str]] = {}
    for line in read_jsonl(run / "metrics.jsonl"):
        merged.setdefault(int(line["step"]), {}).update({name: f"{line[name]:.4g}" for name in METRICS if name in line})
    validated = {step for step, values in merged.items() if CURVE_FIELDS[2] in values}
    others = [step for step in sorted(merged) if step not in validated]
    room = min(len(others), max(0, CURVE_POINTS - len(validated)))
    spread = np.linspace(0, len(others) - 1, room).round().astype(int)
    kept = sorted(validated | {others[i] for i in spread})
    return [{"cell": identity, "step": step, **merged[step]} for step in kept]


def commit() -> str:
    """The version of the code, as `git describe --always --dirty` names it; results that are not committed yet are no dirt."""
    try:
        name = _git("describe", "--always")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs/studies")
        return f"{name}-dirty" if changed else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def began_on(run: Path) -> str:
    """The version of the code that a cell began on, kept in its folder: another may go on with it."""
    path = run / COMMIT
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        write_text(path, commit())
    return path.read_text()


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    """What it was run on, without names of hosts."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

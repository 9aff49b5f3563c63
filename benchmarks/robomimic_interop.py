"""robomimic's own scripts on a file of ours and in our simulator: `make interop`, or

    python benchmarks/robomimic_interop.py [--episodes 20] [--out runs/robomimic]

One line per step: its name, what its output says, seconds. The whole output of each lies in --out. Stops at the first failure.
Needs .venv-robomimic (`make peers`).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
THEIRS = ROOT / ".venv-robomimic" / "bin" / "python"
SCRIPT = [str(THEIRS), "-m", "qtransformer_sim.robomimic_env"]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets")),
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # robomimic's checkpoints are pickles; this one was written a moment ago
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--episodes", type=int, default=20)
    arguments.add_argument("--out", type=Path, default=ROOT / "runs" / "robomimic")
    given = arguments.parse_args()
    if not THEIRS.exists():
        raise SystemExit(f"{THEIRS} is missing; make it with 'make peers'")
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    interoperate(given.out.resolve(), given.episodes)


def interoperate(out: Path, episodes: int) -> None:
    demo = out / "demo.hdf5"
    collect = [sys.executable, "-m", "qtransformer.cli.main", "collect", "recipe=demo", f"episodes={episodes}", f"out={demo}"]
    run(out, "collect (ours)", collect, r"\d+ episodes, .*")
    info = [*SCRIPT, "robomimic.scripts.get_dataset_info", "--dataset", str(demo)]
    run(out, "get_dataset_info", info, r"total transitions: \d+|filter key .*")
    parity = [str(THEIRS), str(ROOT / "benchmarks" / "robomimic_parity.py"), str(demo)]
    run(out, "SequenceDataset is ours", parity, r"\d+ samples .*")
    for name, how in {"states": [], "actions": ["--use-actions"]}.items():
        video = ["--render_image_names", "agentview", "wrist", "--video_path", str(out / f"{name}.mp4"), "--video_skip", "1"]
        playback = [*SCRIPT, "robomimic.scripts.playback_dataset", "--dataset", str(demo), "--n", "5", *how, *video]
        text = run(out, f"playback_dataset, by {name}", playback, r"Playing back episode: .*", last=True)
        if "diverged" in text:
            raise SystemExit(f"playback by {name} diverged: see {out / 'log'}")
    config = out / "bc.json"
    config.write_text(json.dumps(bc_config(demo, out), indent=2))
    run(out, "train, 2 epochs of BC", [*SCRIPT, "robomimic.scripts.train", "--config", str(config)], r'"Loss": .*|finished run.*')
    agent = max((out / "bc").rglob("model_epoch_2*.pth"))
    evaluate = ["--agent", str(agent), "--n_rollouts", "5", "--horizon", "24", "--seed", "0", "--dataset_obs"]
    rollouts = ["--dataset_path", str(out / "rollouts.hdf5"), "--video_path", str(out / "rollouts.mp4")]
    script = [*SCRIPT, "robomimic.scripts.run_trained_agent", *evaluate, *rollouts]
    run(out, "run_trained_agent", script, r'"(Return|Horizon|Success_Rate)": .*')
    run(out, "its rollouts, read by us", [sys.executable, "-c", COUNT, str(out / "rollouts.hdf5")], r"\d+ episodes, .*")


COUNT = """
import sys
from qtransformer_datasets import open_episodes
lengths = [len(episode) for episode in open_episodes(sys.argv[1], dones="terminated")]
print(len(lengths), "episodes,", sum(lengths), "steps")
"""


def run(out: Path, name: str, command: list[str], wanted: str, *, last: bool = False) -> str:
    """Run a command, keep its output, and print what matches `wanted` of it."""
    began = time.perf_counter()
    done = subprocess.run(command, env=ENVIRONMENT, cwd=out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = (out / "log" / re.sub(r"\W+", "_", name)).with_suffix(".txt")
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"$ {' '.join(command)}\n{done.stdout}")
    found = re.findall(rf"({wanted})$", done.stdout, re.MULTILINE)
    lines = [match if isinstance(match, str) else match[0] for match in found]
    # robomimic's train.py prints the traceback of a failed run and exits with 0.
    if done.returncode or not lines or "run failed with error" in done.stdout:
        print(done.stdout[-4000:])
        raise SystemExit(f"FAILED  {name} (exit {done.returncode}): see {log}")
    says = "; ".join(line.strip().rstrip(",") for line in (lines[-1:] if last else lines))
    print(f"ok  {name:28} {says}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return done.stdout


def bc_config(demo: Path, out: Path) -> dict:
    """A small image policy; what is not said here is robomimic's default. Its ShallowConv needs no torchvision."""
    conv = {
        "feature_dimension": 32,
        "backbone_class": "ShallowConv",
        "backbone_kwargs": {},
        "pool_class": "SpatialSoftmax",
        "pool_kwargs": {"num_kp": 16},
    }
    return {
        "algo_name": "bc",
        "experiment": {
            "name": "bc",
            "validate": True,
            "epoch_every_n_steps": 20,
            "validation_epoch_every_n_steps": 1,
            "save": {"every_n_epochs": 1},
            "render_video": False,
            "rollout": {"enabled": True, "n": 2, "horizon": 24, "rate": 2},
        },
        "train": {
            "data": str(demo),
            "output_dir": str(out),
            "hdf5_load_next_obs": False,
            "hdf5_filter_key": "train",
            "hdf5_validation_filter_key": "valid",
            "batch_size": 16,
            "num_epochs": 2,
            "cuda": False,
        },
        "algo": {"actor_layer_dims": [64, 64]},
        "observation": {
            "modalities": {"obs": {"low_dim": ["proprio"], "rgb": ["wrist_image"]}},
            "encoder": {"rgb": {"core_class": "VisualCore", "core_kwargs": conv}},
        },
    }


if __name__ == "__main__":
    main()

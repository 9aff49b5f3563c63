"""A cell's probe, in a process of its own: `python -m qtransformer.cli.studies.probing EPISODES CHECKPOINT OUT.json`."""

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from qtransformer.checkpoint import read_checkpoint
from qtransformer.errors import QTransformerError
from qtransformer.files import write_json
from qtransformer.log_evaluation.probing import probe
from qtransformer_datasets import open_episodes


def main(episodes: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    found = probe(read_checkpoint(checkpoint, torch.device("cpu")), list(open_episodes(episodes)))
    write_json(Path(out), asdict(found))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except QTransformerError as error:
        sys.exit(f"{error}")

"""A cell's probe, in a process of its own: `python -m qtransformer.cli.studies.probing EPISODES CHECKPOINT OUT.json`."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from qtransformer.checkpoint import read_checkpoint
from qtransformer.cli.factories import run_directory
from qtransformer.cli.run_config import RunConfig
from qtransformer.errors import QTransformerError
from qtransformer.files import write_json
from qtransformer.log_evaluation.probing import probe
from qtransformer_datasets.episodes.protocols import LoggedEpisodes


def main(episodes: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    found = probe(read_checkpoint(checkpoint, torch.device("cpu")), list(as_trained_on(episodes, checkpoint)))
    write_json(Path(out), asdict(found))


def as_trained_on(episodes: str, checkpoint: str) -> LoggedEpisodes:
    """Episodes read as the cell's own were: with the same rewards, or the network's values would be of others."""
    return replace(RunConfig.load(run_directory(Path(checkpoint))).datasets[0], path=episodes).open()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except QTransformerError as error:
        sys.exit(f"{error}")

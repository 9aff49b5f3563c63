"""`qtransformer data split`: every part a dataset of its own, so that it works for every format and no original is touched."""

from pathlib import Path

from qtransformer.cli.compose import UsageError
from qtransformer.cli.data.reading import count, data_source, episode_bar, listed
from qtransformer.cli.data.writing import is_written, output_format, provenance, write
from qtransformer.cli.data_settings import SplitSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.split import group_keys, split_episodes
from qtransformer_datasets.survey import survey
from qtransformer_datasets.views import select_episodes

PARTS = ("train", "validation", "test")
SUFFIXES = {"robomimic": ".hdf5"}
"""Of formats whose datasets are files."""


def run(settings: SplitSettings) -> int:
    shares = {name: share for name in PARTS if (share := getattr(settings, name)) > 0}
    if any(getattr(settings, name) < 0 for name in PARTS) or abs(sum(shares.values()) - 1) > 1e-6:
        told = " ".join(f"{name}={getattr(settings, name):g}" for name in PARTS)
        raise UsageError(f"data split: the shares expected from 0 and to add up to 1, found {told}")
    source = data_source(settings.path, settings.input_format, settings)
    episodes = source.open()
    found = survey(episodes, episode_bar("read"))
    if found.problems:
        raise DatasetError(f"{found.problems[0]}; `qtransformer data validate` lists all {len(found.problems)} problems")
    read = list(found.episodes.values())
    success = [episode.success for episode in read]
    keys = group_keys(read, settings.by, str(episodes.path)) if settings.by else None
    parts = split_episodes(success, shares, settings.seed, keys)
    format = output_format(settings, source)
    for name, indices in parts.items():
        out, wins = Path(settings.out) / f"{name}{SUFFIXES.get(format, '')}", sum(success[i] for i in indices)
        print(f"{out}: {count(len(indices), 'episode')}, {wins} successful: {listed(indices)}", flush=True)
        settled = {"part": name, "shares": shares, "by": settings.by, "seed": settings.seed}
        derived = provenance("split", [source], **settled)
        if not settings.dry_run and not is_written(out, format, derived):
            write(settings, select_episodes(episodes, indices), out, format, derived)
    return 0

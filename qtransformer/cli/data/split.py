"""`qtransformer data split`: every part a dataset of its own, so that it works for every format and no original is touched.

With `masks=true`, one robomimic file whose masks name the parts.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from qtransformer.cli.compose import UsageError
from qtransformer.cli.data.reading import count, data_source, episode_bar, listed
from qtransformer.cli.data.writing import check_free, is_written, output_format, provenance, write
from qtransformer.cli.data_settings import SplitSettings
from qtransformer.errors import DatasetError
from qtransformer_datasets.curation.split import group_keys, split_episodes
from qtransformer_datasets.curation.survey import survey
from qtransformer_datasets.data_source import COMMON_OPTIONS, DataSource
from qtransformer_datasets.formats import check_writing, format_of, opening_options
from qtransformer_datasets.robomimic.masks import copy_with_masks
from qtransformer_datasets.robomimic.reader import HDF5Episodes
from qtransformer_datasets.views import select_episodes

PARTS = ("train", "validation", "test")
MASKS = {"validation": "valid"}
"""What robomimic calls a part otherwise."""
SUFFIXES = {"robomimic": ".hdf5"}
"""Of formats whose datasets are files."""


def run(settings: SplitSettings) -> int:
    shares = {name: share for name in PARTS if (share := getattr(settings, name)) > 0}
    if any(getattr(settings, name) < 0 for name in PARTS) or abs(sum(shares.values()) - 1) > 1e-6:
        told = " ".join(f"{name}={getattr(settings, name):g}" for name in PARTS)
        raise UsageError(f"data split: expected shares of at least 0 that add up to 1, found {told}")
    source = data_source(settings.path, settings.input_format, settings)
    if settings.masks:
        check_free(settings.out)
        check_copied_as_it_is(source, settings)
    episodes = source.open()
    found = survey(episodes, episode_bar("read"))
    if found.problems:
        raise DatasetError(f"{found.problems[0]}; `qtransformer data validate` lists all {len(found.problems)} problems")
    read = list(found.episodes.values())
    success = [episode.success for episode in read]
    keys = group_keys(read, settings.by, str(episodes.path)) if settings.by else None
    parts = split_episodes(success, shares, settings.seed, keys)
    settled = {"shares": shares, "by": settings.by, "seed": settings.seed}
    if isinstance(episodes, HDF5Episodes) and settings.masks:
        masks = {_mask(name, source): indices for name, indices in parts.items()}
        for name, indices in masks.items():
            _tell(f"{settings.out}, mask {name}", indices, success)
        _warn_of_parts_without_success(masks, success)
        if not settings.dry_run:
            named = {name: [episodes.names[i] for i in indices] for name, indices in masks.items()}
            own = [_mask(name, source) for name in PARTS]
            copy_with_masks(episodes.path, Path(settings.out), named, provenance("split", [source], **settled), own)
        return 0
    format = output_format(settings, source)
    check_writing(settings.out, format, settings.out_options)
    outs = {name: Path(settings.out) / f"{name}{SUFFIXES.get(format, '')}" for name in parts}
    derived = {name: provenance("split", [source], part=name, **settled) for name in parts}
    missing = [name for name, out in outs.items() if not is_written(out, format, derived[name])]  # all, before a word is said
    for name, indices in parts.items():
        _tell(str(outs[name]), indices, success)
        if name in missing and not settings.dry_run:
            write(settings, select_episodes(episodes, indices), outs[name], format, derived[name])
    _warn_of_parts_without_success(parts, success)
    return 0


def _warn_of_parts_without_success(parts: Mapping[str, Sequence[int]], success: Sequence[bool]) -> None:
    """A part of failures alone cannot tell how good a policy is."""
    bare = [name for name, indices in parts.items() if not any(success[i] for i in indices)]
    if bare and any(success):
        warnings.warn(
            f"no success among the episodes of {' and '.join(bare)}, though the dataset has {sum(success)}: `eval dataset=` "
            "refuses such a part; give it a larger share (validation=0.3), or name fewer parts (test=0)",
            stacklevel=3,
        )


def check_copied_as_it_is(source: DataSource, settings: SplitSettings) -> None:
    """Refuse what a copy with masks cannot do: another format, other cameras or labels, episodes left out."""
    formats = {format_of(source.path, source.format).name, output_format(settings, source)}
    if formats != {"robomimic"}:
        raise UsageError(f"data split: masks=true is for robomimic files, found {' and '.join(sorted(formats))}; leave it out")
    value = source.to_value()
    said = [name for name in (*COMMON_OPTIONS, *opening_options()) if not isinstance(value, str) and name in value]
    said += [f"out.{name}" for name in settings.out_options]
    if said:
        raise UsageError(
            f"data split: masks=true copies the file as it is, found {', '.join(said)}; apply that with `data convert` or "
            "`data relabel` first"
        )


def _mask(part: str, source: DataSource) -> str:
    """robomimic's own name of a part, and of one of a mask."""
    within = source.options.get("filter_key")
    return f"{within}_{MASKS.get(part, part)}" if within else MASKS.get(part, part)


def _tell(where: str, indices: Sequence[int], success: Sequence[bool]) -> None:
    wins = sum(success[i] for i in indices)
    print(f"{where}: {count(len(indices), 'episode')}, {wins} successful: {listed(indices)}", flush=True)

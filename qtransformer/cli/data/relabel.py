"""`qtransformer data relabel`."""

import hashlib
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from qtransformer.cli.compose import UsageError
from qtransformer.cli.data.reading import count, data_source
from qtransformer.cli.data.writing import check_free, output_format, provenance, write
from qtransformer.cli.data_settings import RelabelSettings
from qtransformer.types import Episode
from qtransformer_datasets.curation.relabel import label_by_function, label_by_hand, read_labels
from qtransformer_datasets.data_source import Rewards
from qtransformer_datasets.views import relabel_success, reward_success


def run(settings: RelabelSettings) -> int:
    check_free(settings.out)
    ways = {"success": settings.success is not None, "labels": bool(settings.labels), "function": bool(settings.function)}
    if sum(ways.values()) > 1:
        raise UsageError(f"data relabel takes one of {', '.join(ways)}, found {', '.join(k for k, v in ways.items() if v)}")
    if not any(ways.values()) and settings.rewards is Rewards.logged:
        raise UsageError("data relabel needs success=..., labels=..., function=... or rewards=success")
    source = data_source(settings.path, settings.input_format, settings)
    episodes = source.open()
    if settings.success is not None:
        episodes = relabel_success(episodes, settings.success)
    if settings.labels:
        episodes = label_by_hand(episodes, read_labels(Path(settings.labels), len(episodes)))
    if settings.function:
        episodes = label_by_function(episodes, load_function(settings.function), settings.function)
    if settings.rewards is Rewards.success:
        episodes = reward_success(episodes)
    derived = provenance("relabel", [source], **_settled(settings))
    write(settings, episodes, Path(settings.out), output_format(settings, source), derived)
    print(f"{settings.out}: {count(len(episodes), 'episode')}")
    return 0


def _settled(settings: RelabelSettings) -> dict[str, Any]:
    """Which labels; what they come from by content, so that a killed run does not go on after that was mended."""
    settled: dict[str, Any] = {"rewards": settings.rewards.value}
    if settings.success is not None:
        settled |= {"success": settings.success}
    if settings.labels:
        path = Path(settings.labels)
        settled |= {"labels": path.name, "labels_sha256": _sha256(path.read_bytes())}
    if settings.function:
        settled |= {"function": settings.function, "function_sha256": _sha256(_source_of(load_function(settings.function)))}
    return settled


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _source_of(function: Callable[..., Any]) -> bytes:
    """All of its file, as it may call what stands beside it; empty where there is none to read, as of what is built in."""
    try:
        return Path(inspect.getfile(inspect.getmodule(function) or function)).read_bytes()
    except (OSError, TypeError):
        return b""


def load_function(target: str) -> Callable[[Episode], Any]:
    """A function of the user's own, named on the command line: no file chooses what code runs."""
    module, _, name = target.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"function={target} cannot be found ({error}); write it as package.module:name") from error
    if not callable(function):
        raise UsageError(f"function={target} expected a function, found {type(function).__name__}")
    return function

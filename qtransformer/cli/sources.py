"""Datasets as settings name them: a path, a mapping with options, or a list of those."""

from typing import Any

from qtransformer.cli.compose import UsageError
from qtransformer.errors import ConfigError
from qtransformer_datasets.data_source import DataSource


def listed_sources(key: str, value: Any) -> list[DataSource]:
    """What the setting `key` lists, with absolute paths, so that they are found from another folder, too."""
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise UsageError(f"{key}: expected a path, a mapping with a path, or a list of them, found an empty list")
    try:
        return [DataSource.parse(item, key).absolute() for item in listed]
    except ConfigError as error:
        raise UsageError(str(error)) from None

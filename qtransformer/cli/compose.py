"""From `key=value` arguments to one verb's settings: Hydra composes, and every slip becomes one sentence with a way out."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import resources
from typing import Any, get_origin, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from qtransformer.cli import data_settings, settings
from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest
from qtransformer_datasets.data_source import dataset_options

CONF = "qtransformer.conf"
SCHEMAS: dict[str, Any] = {
    "doctor": settings.DoctorSettings,
    "demo": settings.DemoSettings,
    "collect": settings.CollectSettings,
    "train": settings.TrainSettings,
    "resume": settings.ResumeSettings,
    "eval": settings.EvalSettings,
    "report": settings.ReportSettings,
    "study": settings.StudySettings,
    "calibrate": settings.CalibrateSettings,
    "ros-demo": settings.RosDemoSettings,
    "data inspect": data_settings.InspectSettings,
    "data validate": data_settings.ValidateSettings,
    "data convert": data_settings.ConvertSettings,
    "data view": data_settings.ViewSettings,
    "data stats": data_settings.StatsSettings,
    "data split": data_settings.SplitSettings,
    "data merge": data_settings.MergeSettings,
    "data relabel": data_settings.RelabelSettings,
}
GROUPS = {"train": ("preset", "value")}
"""Verbs whose settings have YAML overlays to choose from; see `conf/`."""


class UsageError(ConfigError):
    """A command line that cannot be understood; exit code 2."""


def compose_settings(verb: str, arguments: Sequence[str]) -> Any:
    """The settings of `verb` under overrides `key=value`.

    Raises:
        UsageError: an unknown key, group or choice, a wrong type, or a mandatory setting left out.
    """
    types = setting_types(SCHEMAS[verb])
    overrides = [_checked_override(verb, argument, types) for argument in arguments]
    _register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONF, version_base=None):
            return OmegaConf.to_object(compose(_config_name(verb), overrides))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise UsageError(f"{verb} needs {key}=...; `qtransformer {verb} --help` explains it") from None
    except (HydraException, OmegaConfBaseException) as error:
        said = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
        raise UsageError(_one_sentence(error, types, said)) from None


def refuse_split_braces(words: Sequence[str]) -> None:
    """Bash makes `dataset={path:a,dones:terminated}` two words, `dataset=path:a dataset=dones:terminated`, unless it is quoted.

    Raises:
        UsageError: this looks like it. Otherwise the last of several words for a setting counts.
    """
    said: dict[str, list[str]] = {}
    for word in words:
        key, _, value = word.partition("=")
        said.setdefault(key, []).append(value)
    for key, values in said.items():
        if len(values) > 1 and any(re.match(r"[a-z_]+:", value) for value in values):
            meant = f"'{key}={{{','.join(values)}}}'"
            raise UsageError(f"{key}= is given {len(values)} times: the shell has split its braces; put it in quotes, {meant}")


def setting_types(schema: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a schema by its dotted name; a nested part is listed before its own settings."""
    hints, found = get_type_hints(schema), {}
    for item in fields(schema):
        kind = hints[item.name]
        found[prefix + item.name] = kind
        if is_dataclass(kind):
            found |= setting_types(kind, f"{prefix}{item.name}.")
    return found


def _mandatory(verb: str) -> set[str]:
    """Settings that have no default."""
    return {item.name for item in fields(SCHEMAS[verb]) if item.default == MISSING}


def group_choices(group: str) -> list[str]:
    """Names of the overlays of a group."""
    folder = resources.files(CONF) / group
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def check_choice(key: str, word: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if word not in known:
        raise UsageError(f"{key}={word} is not known; {suggest(word, sorted(known))}")


def _checked_override(verb: str, argument: str, types: dict[str, Any]) -> str:
    """The override as Hydra should read it. Text is quoted, so that a path may hold any character."""
    key, equals, value = argument.partition("=")
    groups = GROUPS.get(verb, ())
    if not equals or not key:
        raise UsageError(f"'{argument}' is not of the form key=value; `qtransformer {verb} --help` lists the keys")
    known = [*groups, *(name for name, kind in types.items() if not is_dataclass(kind))]
    if key in groups:
        check_choice(key, value, group_choices(key))
        return argument
    if key not in known:
        return _reader_option(verb, key, value, types, known)
    if not value and key in _mandatory(verb):
        raise UsageError(f"{key}= is empty; say which (an unset variable of the shell reads so)")
    if types[key] is str or (types[key] is Any and not value.startswith(("[", "{"))):
        return f"{key}={quoted(value)}"
    if types[key] == list[str] and not value.startswith("["):
        return f"{key}=[{quoted(value)}]"
    _check_grammar(argument, key)
    return f"++{argument}" if get_origin(types[key]) is dict else argument


def _reader_option(verb: str, key: str, value: str, types: dict[str, Any], known: Sequence[str]) -> str:
    """A key that the verb leaves to the format: `dones=terminated` for its reader, `out.crf=20` for its writer."""
    name, group = (key.removeprefix("out."), "out_options") if key.startswith("out.") else (key, "options")
    if group not in types or not name.isidentifier():
        if "dataset" in types and key in dataset_options():
            said = f"dataset={{path:...,{key}:{value}}}"
            raise UsageError(f"{verb} has no setting '{key}'; it is an option of a dataset, and said there: {said}")
        remedy = suggest(key, known, otherwise=f"`qtransformer {verb} --help` lists them")
        raise UsageError(f"{verb} has no setting '{key}'; {remedy}")
    if value.startswith(("[", "{")):
        _check_grammar(f"{name}={value}", name)
    elif not _is_scalar(value):
        value = quoted(value)
    return f"++{group}.{name}={value}"


def _is_scalar(value: str) -> bool:
    """Whether Hydra reads it as one number, flag or word."""
    try:
        [override] = OverridesParser.create().parse_overrides([f"x={value}"])
    except HydraException:
        return False
    return not override.is_sweep_override() and isinstance(override.value(), str | bool | int | float)


def _check_grammar(argument: str, key: str) -> None:
    try:
        [override] = OverridesParser.create().parse_overrides([argument])
    except HydraException:
        raise UsageError(f"'{argument}' cannot be read; brackets, braces and quotes need their partners") from None
    if override.is_sweep_override():
        raise UsageError(f"{argument}: one value at a time; a list is written {key}=[a,b]")


def quoted(value: str) -> str:
    """Text as Hydra takes it without reading anything into it: no escape, no end of a quote, no interpolation."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    escaped = re.sub(r"(\\+)(?=$|')", r"\1\1", value).replace("'", "\\'")  # only where a quote follows is a backslash an escape
    return "'" + escaped.replace("${", "\\${") + "'"


def _config_name(verb: str) -> str:
    return verb if verb in GROUPS else f"{verb.replace(' ', '_')}_schema"


def _register() -> None:
    store = ConfigStore.instance()
    for verb, schema in SCHEMAS.items():
        store.store(name=f"{verb.replace(' ', '_')}_schema", node=schema)


def _one_sentence(error: Exception, types: dict[str, Any], said: dict[str, str]) -> str:
    """What Hydra and OmegaConf say in a paragraph; `said` has the values as they were typed."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and isinstance(cause, Exception):
        chain.append(cause)
    for one in reversed(chain):
        key = str(getattr(one, "full_key", None) or "")
        if key in types:
            return f"{key}: {_explain_type(types[key], str(one), said.get(key, ''))}"
    return str(chain[-1]).splitlines()[0]


def _explain_type(kind: Any, message: str, word: str) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [member.name for member in kind]
        return f"'{word}' is not known; {suggest(word, names, otherwise='choose one')} (choices: {', '.join(names)})"
    name = {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))
    return f"expected {name}, found '{word}'" if word else f"expected {name}; {message.splitlines()[0]}"

"""Where episodes come from, as a user says it and a run keeps it: a path, or a mapping with options.

data/low.hdf5
{path: demos.hdf5, dones: terminated, cameras: {wrist: robot0_eye_in_hand}, success: true, rewards: success}
{path: data/low.hdf5, reward_noise: 0.3, noise_seed: 1}
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets import views
from qtransformer_datasets.episodes.protocols import LoggedEpisodes
from qtransformer_datasets.formats import (
    FILE_OPTIONS,
    FORMATS,
    format_of,
    open_episodes,
    opening_options,
    reader_options,
    refuse_unknown,
)

LARGEST_IMAGE = 4096
Number = TypeVar("Number", int, float)
COMMON_OPTIONS = ("cameras", "image_size", "success", "rewards", "reward_scale", "step_reward", "reward_noise", "noise_seed")
"""Of every dataset, whatever its format."""


class Rewards(Enum):
    """Where rewards come from."""

    logged = "logged"
    """As the log has them."""
    success = "success"
    """1 at the last step of a success, which ends the task, and 0 elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One dataset and how it is read. Everything but `options` works for every format."""

    path: str
    """File or directory."""
    format: str = "auto"
    """Name of its format; by default what lies at the path tells."""
    weight: float | None = None
    """How often it is drawn from, relative to the others of a training. None: 1, or by its size where no other has one."""
    cameras: dict[str, str] | None = None
    """Cameras to keep, new name to the dataset's own; all others are dropped. None keeps them as they are."""
    image_size: tuple[int, int] | None = None
    """Make images smaller, to (h, w) [pixel]."""
    success: bool | None = None
    """Whether its episodes are successes, for logs that do not say so; refused where one says the opposite. What else is said of
    success is left to the reader."""
    rewards: Rewards = Rewards.logged
    """Where rewards come from."""
    reward_scale: float = 1.0
    """Every reward times this; before `step_reward`."""
    step_reward: float = 0.0
    """Added to the reward of every step: -1 makes haste worth something."""
    reward_noise: float = 0.0
    """Noise U(0, this) on the last reward of every episode, to study what noise does to learning. Where `value.v_max` is given, it
    must hold that, too."""
    noise_seed: int = 0
    """Seed of that noise."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the format's reader."""

    @classmethod
    def parse(cls, value: Any, where: str = "dataset") -> "DataSource":
        """From a path, or from a mapping of plain values: the fields above, and beside them the options of the reader.

        Raises:
            ConfigError: anything else; nothing is opened yet.
        """
        if isinstance(value, str):
            return cls(path=value)
        if not isinstance(value, Mapping) or not isinstance(value.get("path"), str):
            raise ConfigError(f"{where}: expected a path, or a mapping with a path, found {value!r}")
        own = {f.name for f in fields(cls)} - {"options"}
        options = dict(value.get("options") or {}) | {k: v for k, v in value.items() if k not in own and k != "options"}
        success = value.get("success")
        if success is not None and not isinstance(success, bool):  # a reader may know more than yes and no: a list of episodes
            options["success"] = success
        for name, option in options.items():
            if not isinstance(name, str) or not _is_plain(option):
                raise ConfigError(
                    f"{where}: option '{name}' expected a number, a text, or a list or mapping of them, found {option!r}"
                )
        return cls(
            path=value["path"],
            format=_text(value.get("format", "auto"), f"{where}.format"),
            weight=_number(value, "weight", 1.0, where, "a number above 0", lambda n: n > 0) if "weight" in value else None,
            cameras=_cameras(value.get("cameras"), f"{where}.cameras"),
            image_size=_size(value.get("image_size"), f"{where}.image_size"),
            success=success if isinstance(success, bool) else None,
            rewards=_rewards(value.get("rewards", "logged"), f"{where}.rewards"),
            reward_scale=_number(value, "reward_scale", 1.0, where),
            step_reward=_number(value, "step_reward", 0.0, where),
            reward_noise=_number(value, "reward_noise", 0.0, where, "a number of at least 0", lambda n: n >= 0),
            noise_seed=_number(value, "noise_seed", 0, where, "a whole number of at least 0", lambda n: type(n) is int and n >= 0),
            options=options,
        )

    def to_value(self) -> Any:
        """The inverse of `parse`, in plain values: the path alone where nothing else is said."""
        said: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in ("path", "options") and value != item.default:
                said[item.name] = value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value
        return {"path": self.path, **said, **self.options} if said or self.options else self.path

    def open(self) -> LoggedEpisodes:
        """Its episodes.

        Raises:
            ConfigError: an option that neither datasets nor this format have.
            DatasetError: it cannot be read.
        """
        check_options(self)
        options = dict(self.options)
        if self.cameras is not None and "cameras" in reader_options(format_of(self.path, self.format)):
            options["cameras"] = list(dict.fromkeys(self.cameras.values()))  # what is dropped need not be decoded
        source: LoggedEpisodes = open_episodes(self.path, self.format, **options)
        if self.cameras is not None:
            source = views.keep_cameras(source, set(self.cameras.values()))
        if self.image_size is not None:
            source = views.shrink_images(source, self.image_size)
        if self.cameras is not None:  # after all that changes pixels: one cache serves all names
            source = views.select_cameras(source, self.cameras)
        if self.success is not None:
            source = views.say_success(source, self.success)
        if self.rewards is Rewards.success:
            source = views.reward_success(source)
        if (self.reward_scale, self.step_reward) != (1.0, 0.0):
            source = views.shaped_rewards(source, self.reward_scale, self.step_reward)
        return views.noisy_rewards(source, self.reward_noise, self.noise_seed) if self.reward_noise else source

    def absolute(self) -> "DataSource":
        """The same from any folder: its path, and options that name a file (a topic contract), made absolute."""
        options = {
            name: _absolute(value) if name in FILE_OPTIONS and isinstance(value, str) else value
            for name, value in self.options.items()
        }
        return replace(self, path=_absolute(self.path), options=options)

    def typed(self, **instead: Any) -> str:
        """As `dataset=` takes it on a command line, with these keys beside or instead of what it says."""
        value = self.to_value()
        return _typed((value if isinstance(value, dict) else {"path": value}) | instead)

    def typed_options(self) -> str:
        """The options of the reader as a verb of `data` takes them, each after a space."""
        return "".join(f" {name}={_typed(value)}" for name, value in self.options.items())

    def __str__(self) -> str:
        value = self.to_value()
        said = "" if isinstance(value, str) else ", ".join(f"{k} {v}" for k, v in value.items() if k != "path")
        return f"{self.path} ({said})" if said else self.path


def check_options(source: DataSource, beside: Sequence[str] = ("format", "weight")) -> None:
    """Raise ConfigError at an option that the format's reader does not have.

    The answer takes the options of all datasets and the names `beside` into account, of which the reader knows nothing: the
    settings of a verb, or else the other keys of the mapping that says a dataset of a training.
    """
    if not source.options:
        return
    kind = format_of(source.path, source.format)
    own = [*reader_options(kind), *opening_options()]
    if "success" in source.options and "success" not in own:
        raise ConfigError(f"{source.path}: success expected true or false, found {source.options['success']!r}; choose one")
    refuse_unknown(source.options, own, f"{source.path}: {kind.name}", also=[*COMMON_OPTIONS, *beside])


def _typed(value: Any) -> str:
    """A plain value in the grammar of the command line."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value)
    return f"'{text}'" if isinstance(value, str) and re.search(r"[\s,:{}\[\]()]", text) else text


def dataset_options() -> set[str]:
    """Names of the options of all datasets, and of every format whose libraries are there."""
    found = {*COMMON_OPTIONS, *opening_options(), "format", "weight"}
    for kind in FORMATS:
        with suppress(DatasetError):
            found |= set(reader_options(kind))
    return found


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, str | bool | int | float)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected text, found {value!r}")
    return value


def _number(
    said: Mapping[str, Any],
    name: str,
    default: Number,
    where: str,
    expected: str = "a number",
    accepts: Callable[[Any], bool] = lambda number: True,
) -> Number:
    """What a mapping says under a name, as the type of its default. `expected` says for which finite numbers `accepts` holds."""
    value = said.get(name, default)
    is_finite = isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
    if not is_finite or not accepts(value):
        raise ConfigError(f"{where}.{name}: expected {expected}, found {value!r}; say {name}=1, for instance, or leave it out")
    return type(default)(value)


def _cameras(value: Any, where: str) -> dict[str, str] | None:
    """A mapping, or a list of cameras that keep their names."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        value = {name: name for name in value}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigError(f"{where}: expected {{new: old}} or a list of cameras, found {value!r}")
    return dict(value)


def _size(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    size = [value, value] if isinstance(value, int) else value
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(n) is int and 1 <= n <= LARGEST_IMAGE for n in size):
        raise ConfigError(f"{where}: expected a number of pixels or [height, width], found {value!r}")
    return (size[0], size[1])


def _rewards(value: Any, where: str) -> Rewards:
    try:
        return Rewards(value)
    except ValueError:
        raise ConfigError(f"{where}: expected one of {', '.join(r.value for r in Rewards)}, found {value!r}") from None

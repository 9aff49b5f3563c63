"""Limits of actions as users give them: the option `limits` of every reader whose datasets do not tell them well."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError
from qtransformer.suggest import suggest

Limits = Mapping[str, Sequence[float]] | Sequence[Sequence[float]]
"""{action name: [low, high]}, or [[low, high], ...] of every dimension; in the action's unit."""


def given_limits(limits: Limits | None, names: Sequence[str], where: str) -> dict[str, tuple[float, float]]:
    """By name, those that are given.

    Raises:
        ConfigError: of a dimension that does not exist, of another number of dimensions, or no two finite numbers low < high.
    """
    if limits is None:
        return {}
    if not isinstance(limits, Mapping):
        if isinstance(limits, str) or not isinstance(limits, Sequence) or len(limits) != len(names):
            found = len(limits) if isinstance(limits, Sequence) and not isinstance(limits, str) else repr(limits)
            raise ConfigError(
                f"{where}: limits expected one pair for each of {len(names)} dimensions, found {found}; give all, or some by name: "
                f"limits:{{{names[0]}:[-1,1]}}"
            )
        limits = dict(zip(names, limits, strict=True))
    check_names(limits, names, f"{where}: limits")
    return {name: _pair(pair, f"{where}: limits of '{name}'") for name, pair in limits.items()}


def check_names(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ConfigError at a name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ConfigError(f"{where}: '{name}' does not exist; {suggest(name, known)}")


def typed_limits(names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> str:
    """The option as it is typed; rounded outwards to four digits, so that what lay inside still does."""
    pairs = (f"{name}:[{_outward(a, np.floor):g},{_outward(b, np.ceil):g}]" for name, a, b in zip(names, low, high, strict=True))
    return f"limits:{{{','.join(pairs)}}}"


def extremes(parts: Iterable[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest finite value of each dimension (width,) over rows (T, width); rows of another width are left out."""
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for part in parts:
        rows = part.reshape(len(part), -1)
        if len(rows) and rows.shape[1] == width:
            finite = np.isfinite(rows)
            low = np.minimum(low, np.where(finite, rows, np.inf).min(0))
            high = np.maximum(high, np.where(finite, rows, -np.inf).max(0))
    return low, high


def _outward(value: float, rounded: Any) -> float:
    if value == 0 or not np.isfinite(value):
        return value
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 3)
    return float(rounded(value / unit) * unit)


def _pair(pair: Any, where: str) -> tuple[float, float]:
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} expected two numbers [low, high], found {pair!r}; correct the option") from error
    if not -np.inf < low < high < np.inf:
        raise ConfigError(f"{where} expected finite numbers low < high, found [{low:g}, {high:g}]; correct the option")
    return low, high

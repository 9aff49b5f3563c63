"""`qtransformer VERB [key=value ...]`: finds the verb, composes its settings, and turns what goes wrong into one sentence."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import qtransformer
from qtransformer.cli.compose import SCHEMAS, UsageError, compose_settings, quoted, refuse_split_braces, setting_types
from qtransformer.cli.help import overview, verb_help
from qtransformer.errors import QTransformerError
from qtransformer.files import is_disk_full
from qtransformer.suggest import suggest

MODULES = {"eval": "evaluate", "ros-demo": "ros_demo"}
"""Verbs whose module is called otherwise; `data view` is in `data/view.py`. Each module has `run(settings) -> exit code`."""
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = _one_line
    try:
        return _dispatch(words)
    except UsageError as error:
        return _fail(str(error), 2)
    except QTransformerError as error:
        return _fail(_with_disk(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it can", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain again when it flushes
        return 1
    except OSError as error:
        return _fail(_with_disk(error), 1)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if words in (["data"], ["data", "--help"], ["data", "-h"]):
        print(overview("data "))
        return 0
    if words[0] == "--version":
        print(f"qtransformer {qtransformer.__version__}")
        return 0
    verb, rest = _split_verb(words)
    if "--help" in rest or "-h" in rest:
        print(verb_help(verb))
        return 0
    refuse_split_braces(rest)
    settings = compose_settings(verb, rest)
    refuse_other_files(verb, settings)
    return import_module(f"qtransformer.cli.{MODULES.get(verb, verb.replace(' ', '.'))}").run(settings)


def refuse_other_files(verb: str, settings: Any) -> None:
    """Before anything runs: a result must not take the place of a file of another kind, a dataset say."""
    reports = {"json": ".json", **({"out": ".html"} if verb == "data view" else {})}
    for name, suffix in reports.items():
        path = Path(getattr(settings, name, "") or f"nothing{suffix}")
        if path.suffix != suffix and path.exists():
            raise UsageError(f"{name}={path}: exists, and is no {suffix} file; choose another name")


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    if words[0] != "data":
        if words[0] not in SCHEMAS:
            raise UsageError(f"there is no verb '{words[0]}'; {suggest(words[0], list(SCHEMAS))}")
        return words[0], _with_name(words[1:]) if words[0] == "study" else words[1:]
    verb = " ".join(words[:2])
    if verb not in SCHEMAS:
        raise UsageError(f"there is no verb '{verb}'; {suggest(verb, [known for known in SCHEMAS if known.startswith('data ')])}")
    return verb, _with_paths(verb, words[2:])


def _with_name(words: list[str]) -> list[str]:
    """A first word without a key is the name."""
    named = bool(words) and "=" not in words[0] and not words[0].startswith("-")
    return [f"name={words[0]}", *words[1:]] if named else words


def _with_paths(verb: str, words: list[str]) -> list[str]:
    """Words without a key are paths, those of files whose names hold a `=` too, and `in=` is another word for `path=`."""
    known = setting_types(SCHEMAS[verb])

    def is_path(word: str) -> bool:
        key, equals, _ = word.partition("=")
        return key == "in" or (not word.startswith("-") and (not equals or (key not in known and Path(word).exists())))

    paths = [word.removeprefix("in=") for word in words if is_path(word)]
    rest = [word for word in words if not is_path(word)]
    if len(paths) <= 1:
        return [f"path={path}" for path in paths] + rest
    if known["path"] is str:
        raise UsageError(f"{verb} takes one path, found {len(paths)}: {' '.join(paths)}")
    return [f"path=[{','.join(map(quoted, paths))}]", *rest]


def _with_disk(error: Exception) -> str:
    """The error's sentence. Where a full disk is behind it, that is the sentence: everything else only follows from it."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError):
        message = f"{error.filename or 'a file'}: {error.strerror or message}"
    if not is_disk_full(error) or "disk is full" in message:
        return message
    where = message.split(": ")[0]
    return f"cannot write {where}: the disk is full or a file-size limit was reached; free some space, then run this again"


def _one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    """A warning as a sentence for whoever typed the command, who has no use for a line of our source."""
    return f"warning: {' '.join(str(message).split())}\n"


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

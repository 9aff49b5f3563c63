"""Help is read from the settings, so nothing can be missing from it."""

import pytest

import qtransformer
from qtransformer.cli.compose import SCHEMAS, setting_types
from qtransformer.cli.help import field_docs, verb_help
from qtransformer.cli.main import main
from qtransformer.cli.settings import TrainSettings


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_overview_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in SCHEMAS)


@pytest.mark.parametrize("verb", SCHEMAS)
def test_every_setting_is_explained(verb: str) -> None:
    lines = verb_help(verb).splitlines()
    for name, kind in setting_types(SCHEMAS[verb]).items():
        if not hasattr(kind, "__dataclass_fields__"):
            [line] = [line for line in lines if line.startswith(f"  {name}=")]
            assert line.split("  ")[-1], f"{name} has no docstring"


def test_inherited_and_own_fields_have_their_docstrings() -> None:
    docs = field_docs(TrainSettings)
    assert docs["steps"] == "Gradient steps."
    assert docs["run"] == "Directory of the run."


def test_lines_fit_a_terminal() -> None:
    assert max(len(line) for verb in SCHEMAS for line in verb_help(verb).splitlines()) <= 130


@pytest.mark.parametrize("words", [["train", "--help"], ["data", "inspect", "-h"]])
def test_help_of_a_verb_needs_no_settings(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: qtransformer")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qtransformer {qtransformer.__version__}\n"

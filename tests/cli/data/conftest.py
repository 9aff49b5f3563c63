"""What the tests of the data verbs share."""

import pytest

from qtransformer.cli.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """The command in this process: its exit code, and what it printed."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["data", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call

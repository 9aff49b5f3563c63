import pytest

import command_line
import other_robot


def main(preset: str = "demo", steps: int = 40, noise: float = 0.5) -> int | None:
    print(preset, steps, noise)
    return 3 if preset == "missed" else None


def test_words_replace_defaults_as_their_types(capsys):
    assert command_line.run(main, ["steps=7", "noise=1", "preset=a=b"]) == 0
    assert capsys.readouterr().out == "a=b 7 1.0\n"


def test_the_exit_code_is_mains():
    assert command_line.run(main, ["preset=missed"]) == 3


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("stepz=7", "expected key=value of preset=demo steps=40 noise=0.5, found 'stepz=7'"),
        ("steps", "found 'steps'"),
        ("steps=many", "steps=many: expected int, as in steps=40"),
    ],
)
def test_what_is_no_argument_is_refused_before_anything_runs(capsys, word, told):
    assert command_line.run(main, [word]) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert not out


def test_help_is_the_description_of_the_benchmark(capsys):
    assert command_line.run(other_robot.main, ["--help"]) == 0
    assert "out=data/other_robot.hdf5 episodes=8" in capsys.readouterr().out

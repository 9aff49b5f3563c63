import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from qtransformer.intervals import wilson
from qtransformer.report import build_report, page
from qtransformer.report.record import read_record

from .conftest import make_evaluation, write_evaluation

SECTIONS = ["success", "videos", "learning", "values", "episodes", "timing", "settings"]


class Outline(HTMLParser):
    """Text, identifiers and addresses of a page, and whether its tags nest."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.ids, self.addresses, self.open = [], [], [], []
        self.tags: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "action", "poster", "srcset", "data"):
                self.addresses.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def outline(run: Path) -> Outline:
    return Outline(build_report(run).read_text())


def test_a_complete_run_gives_every_section_without_a_note(full_run: Path) -> None:
    (full_run / "videos").mkdir()
    (full_run / "videos" / "a.mp4").write_bytes(b"film")
    entry = {"file": "a.mp4", "seed": 1, "success": True, "steps": 5, "label": "Q-Transformer"}
    (full_run / "videos" / "videos.json").write_text(json.dumps([entry]))
    path = build_report(full_run)
    result = Outline(path.read_text())
    assert path == full_run.resolve() / "report.html"
    assert [i for i in result.ids if i in SECTIONS] == SECTIONS
    assert 'class="note"' not in path.read_text()
    assert result.tags.count("svg") == 12
    assert result.open == []
    assert len(result.ids) == len(set(result.ids))


def test_numbers_of_the_page_are_those_of_the_inputs(full_run: Path) -> None:
    text = outline(full_run).text
    low, high = wilson(13, 20)
    assert f"0.65 success, [{low:.2f}, {high:.2f}] over 20 episodes" in text
    for name, successes in (("Behaviour cloning", 7), ("Scripted expert", 19), ("Random", 0)):
        assert f"{name} {successes / 20:.2f}" in text
        assert f"{successes / 20:.2f} [{wilson(successes, 20)[0]:.2f}, {wilson(successes, 20)[1]:.2f}]" in text
    assert "The data 0.29" in text
    # Seeds 7 to 12 are won by ours alone: p = 2 / 2**6.
    assert "Behaviour cloning +0.30 6 0 7 7 0.03" in text
    assert "Scripted expert -0.30 0 6 13 1 0.03" in text
    assert "Random +0.65 13 0 0 7 0.0002" in text
    assert "highest 0.62 at step 50" in text
    assert "loss 0.01 " in text
    # Values .31 and .74 before every outcome: |.31 - .65| and |.74 - .65| weigh equally.
    assert "error 0.215" in text
    assert "successes 13 9 (3 to 15)" in text
    assert "failures at the time limit 7 20 (20 to 20)" in text
    assert "1,234 samples/s" in text
    assert "model.action_bins 5" in text


def test_results_of_other_settings_than_the_training_s_never_stand_there_as_its_own(full_run: Path) -> None:
    path, told = full_run / "evaluations" / "qtransformer.json", "proposals=64 (trained: 8)"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"not_as_trained": told}))
    distributions = full_run / "value_distributions.npz"
    with np.load(distributions) as file:
        kept = dict(file)
    np.savez(distributions, **kept, label="filmed otherwise")
    page = build_report(full_run).read_text()
    assert f"over 20 episodes, acting by {told}</p>" in page
    assert f"<h3>Q-Transformer, {told} on the same seeds" in page
    assert f"<th>Q-Transformer, {told}</th>" in page
    assert "filmed otherwise, " in page


def test_nothing_is_asked_of_the_network(full_run: Path) -> None:
    html = build_report(full_run).read_text()
    assert not re.search(r"https?:|//[a-z]|@import", re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", html))
    assert all(a.startswith(("#", "data:")) for a in Outline(html).addresses)
    assert "script" not in Outline(html).tags


def test_an_empty_run_gives_a_page_of_notes(tmp_path: Path) -> None:
    result = outline(tmp_path)
    assert [i for i in result.ids if i in SECTIONS] == SECTIONS
    assert "Not evaluated yet" in result.text
    assert "svg" not in result.tags


PARTS = [
    "config.json",
    "metrics.jsonl",
    "baselines/bc/metrics.jsonl",
    "evaluations/qtransformer.json",
    "evaluations/bc.json",
    "data.json",
    "value_distributions.npz",
]


@pytest.mark.parametrize("missing", [PARTS[:1], PARTS[1:3], PARTS[3:4], PARTS[4:]])
def test_missing_parts_leave_the_rest(full_run: Path, missing: list[str]) -> None:
    for part in missing:
        (full_run / part).unlink()
    result = outline(full_run)
    assert [i for i in result.ids if i in SECTIONS] == SECTIONS
    assert "svg" in result.tags


@pytest.mark.parametrize("part", [p for p in PARTS if not p.endswith("jsonl")])
@pytest.mark.parametrize("content", ["", "{", "[1]", '{"results": [{}], "seconds": 1}'])
def test_a_damaged_part_is_named(full_run: Path, part: str, content: str) -> None:
    (full_run / part).write_text(content)
    harmless = part == "config.json" and content.startswith('{"')
    assert [line.split(":")[0] for line in read_record(full_run).damaged] == ([] if harmless else [part])


def test_damaged_parts_are_named_on_the_page(full_run: Path) -> None:
    for part in PARTS:
        (full_run / part).write_text("{")
    result = outline(full_run)
    assert "cannot be read: evaluations/qtransformer.json: " in result.text
    assert [i for i in result.ids if i in SECTIONS] == SECTIONS


def test_sick_numbers_do_not_break_the_page(full_run: Path) -> None:
    lines = [
        '{"step": 10, "loss": NaN, "td_loss": Infinity, "q_start": null}',
        '{"step": 20, "loss": -1.0}',
        '{"loss": 1}',
    ]
    (full_run / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "lo']))
    assert "loss -1" in outline(full_run).text


def test_words_from_files_are_escaped(full_run: Path) -> None:
    nasty = '<script>alert("1")</script> & $\\frac$'
    write_evaluation(full_run, "qtransformer", make_evaluation(3, 5), nasty)
    write_evaluation(full_run, "<b>", make_evaluation(2, 5), nasty)
    (full_run / "config.json").write_text(json.dumps({"algo": nasty, nasty: nasty}))
    (full_run / "videos").mkdir()
    (full_run / "videos" / "a.mp4").write_bytes(b"film")
    entry = {"file": "a.mp4", "seed": 1, "success": True, "steps": 5, "label": nasty}
    (full_run / "videos" / "videos.json").write_text(json.dumps([entry]))
    result = outline(full_run)
    assert "script" not in result.tags
    assert result.text.count(nasty) >= 6
    assert result.open == []


def test_videos_travel_inside_the_page_while_they_are_small(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = full_run / "videos"
    videos.mkdir()
    names = ["b c.mp4", "gone.mp4", "../../outside.mp4"]
    (videos / names[0]).write_bytes(b"film")
    (full_run.parent / "outside.mp4").write_bytes(b"secret")
    entries = [{"file": n, "seed": 7, "success": False, "steps": 24, "label": "Q-Transformer"} for n in names]
    (videos / "videos.json").write_text(json.dumps(entries))
    inside = outline(full_run)
    assert [a for a in inside.addresses if a.startswith("data:video")] == ["data:video/mp4;base64,ZmlsbQ=="]
    assert "failure Q-Transformer seed 7, 24 steps" in inside.text
    monkeypatch.setattr(page, "EMBED_BYTES", 3)
    assert "videos/b%20c.mp4" in outline(full_run).addresses


def test_plots_for_the_readme(full_run: Path) -> None:
    build_report(full_run)
    for name in ("success", "learning"):
        image = cv2.imread(str(full_run / "plots" / f"{name}.png"))
        assert image is not None
        assert image.shape[1] >= 1200
        assert image.std() > 5


def test_no_simulator_and_no_data_format_is_imported() -> None:
    code = "import sys, qtransformer.report; print(sorted({'pybullet', 'gymnasium', 'h5py', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

"""The page of a dataset: episodes with what the cameras saw, what was done and what it earned, and all of them in a table."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from qtransformer.intervals import wilson
from qtransformer.report.canvas import Canvas, rgb
from qtransformer.report.pieces import badge, card, document, embedded_video, note, publish, table
from qtransformer.report.traces import LEFT, RIGHT, traces
from qtransformer.report.video import Video
from qtransformer.types import ActionSpec, Episode, ObservationSpec

TILE, STRIP, SPACE = 240, 24, 4
"""Height of a camera's picture, of the line with its name, and the room between cameras [pixel]."""
MOST_COLUMNS = 3
"""Cameras side by side before a new row begins."""
MOST_ROWS = 2000
"""Episodes in the table; further ones are only counted."""
INK, PALE, MUTED = rgb("#1d2126"), rgb("#e7eaee"), rgb("#9aa2ad")

PLAYHEAD = """for (const episode of document.querySelectorAll(".episode")) {
  const video = episode.querySelector("video"), head = episode.querySelector(".playhead");
  if (!video || !head) continue;
  const move = () => {
    const share = Math.min(1, video.currentTime * video.dataset.hz / video.dataset.steps);
    const x = LEFT + share * (RIGHT - LEFT);
    head.setAttribute("x1", x); head.setAttribute("x2", x);
    if (!video.paused) requestAnimationFrame(move);
  };
  for (const event of ["play", "seeked", "timeupdate"]) video.addEventListener(event, move);
}
""".replace("LEFT", str(LEFT)).replace("RIGHT", str(RIGHT))
"""Moves a line over the plots of an episode while its video plays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """What a page is made from."""

    name: str
    origin: str
    """Path and format, as a line."""
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    episodes: Mapping[int, Episode]
    """Every readable episode by its number, without images."""
    attributes: Mapping[str, Any]
    problems: Sequence[str]


def build_dataset_page(
    record: DatasetRecord, shown: Iterable[int], read: Callable[[int], Episode], out: Path, hidden: str = ""
) -> Path:
    """Write the page.

    Args:
        record: The dataset at large.
        shown: Numbers of the episodes that get a video and plots.
        read: Gives an episode with its images.
        out: The page.
        hidden: A note on the episodes that are not shown.

    Returns:
        The page.
    """
    cards, numbers = [], set()
    for index in shown:
        cards.append(episode_card(index, read(index), record.action_spec, record.observation_spec))
        numbers.add(index)
    sections = [
        _section(
            "episodes", "Episodes", "What the cameras saw, what was done, and what it earned.", note(hidden) if hidden else ""
        ),
        "".join(cards),
        _section("dimensions", "Dimensions", "Where actions and proprioception lie.", _dimensions(record)),
        _section("all", "All episodes", "Those shown above are links.", _all_episodes(record, numbers)),
        _section("about", "About", "What the dataset says of itself.", _about(record)),
    ]
    problems = "".join(note(problem) for problem in record.problems)
    if problems:
        sections.insert(0, _section("problems", "Problems", "What is wrong with it.", problems))
    names = ["episodes", "dimensions", "all", "about"]
    if problems:
        names.insert(0, "problems")
    links = "".join(f'<a href="#{name}">{name.capitalize() if name != "all" else "All episodes"}</a>' for name in names)
    header = (
        f'<div class="top"><h1>{escape(record.name)}</h1><p>{escape(record.origin)}</p></div>{_headline(record)}<nav>{links}</nav>'
    )
    footnote = "Actions and proprioception are in robot units; the interval is a 95% Wilson interval."
    return publish(out, document(record.name, header, "".join(sections), footnote, PLAYHEAD))


def episode_card(index: int, episode: Episode, action_spec: ActionSpec, observation_spec: ObservationSpec) -> str:
    """One episode: video beside its traces."""
    hz = observation_spec.control_hz
    asked = f"<q>{escape(episode.instruction)}</q>" if episode.instruction else ""
    ended = "terminated" if episode.terminated[-1] else "truncated"
    fact = f"{len(episode)} steps, {len(episode) / hz:.1f} s, {ended}"
    video = ""
    if episode.images:
        source = embedded_video(film_cameras(episode, hz))
        video = (
            f'<figure><video controls muted loop playsinline preload="metadata" data-hz="{hz}" data-steps="{len(episode)}" '
            f'src="{source}"></video></figure>'
        )
    heading = f"<h3>Episode {index}{badge(episode.success)}{asked}<span>{escape(fact)}</span></h3>"
    plots = traces(episode.actions, episode.rewards, action_spec)
    return f'<div class="card episode" id="episode-{index}">{heading}{video}{plots}</div>'


def film_cameras(episode: Episode, hz: float) -> bytes:
    """An MP4 of all cameras side by side, a frame per observation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        first = draw_cameras({name: rows[0] for name, rows in episode.images.items()}, 0, len(episode))
        with Video(path, hz, (first.shape[1], first.shape[0])) as video:
            for t in range(len(episode) + 1):
                video.add(draw_cameras({name: rows[t] for name, rows in episode.images.items()}, t, len(episode)))
        return path.read_bytes()


def draw_cameras(images: Mapping[str, np.ndarray], step: int, steps: int) -> UInt8[np.ndarray, "h w 3"]:
    """One frame: every camera at the same height with its name under it; even sizes, as H.264 wants them."""
    widths = {name: max(48, round(TILE * picture.shape[1] / picture.shape[0] / 2) * 2) for name, picture in images.items()}
    rows = [list(images)[i : i + MOST_COLUMNS] for i in range(0, len(images), MOST_COLUMNS)]
    width = max(sum(widths[name] + SPACE for name in row) - SPACE for row in rows)
    canvas = Canvas(width, len(rows) * (TILE + STRIP), INK)
    for r, row in enumerate(rows):
        x, y = 0, r * (TILE + STRIP)
        for name in row:
            canvas.image(images[name], (x, y, widths[name], TILE))
            canvas.text(x + 6, y + TILE + 17, name, 13, PALE, room=widths[name] - 60)
            x += widths[name] + SPACE
    canvas.text(width - 6, len(rows) * (TILE + STRIP) - 7, f"{step}/{steps}", 13, MUTED, align=1)
    return canvas.pixels


def _headline(record: DatasetRecord) -> str:
    episodes = list(record.episodes.values())
    if not episodes:
        return note("No episode can be read.", top=True)
    wins, steps = sum(e.success for e in episodes), sum(map(len, episodes))
    low, high = wilson(wins, len(episodes))
    hz = record.observation_spec.control_hz
    facts = {
        "Steps": f"{steps:,}",
        "Mean length": f"{steps / len(episodes):.1f}",
        "Control": f"{hz:g} Hz",
        "Duration": f"{steps / hz / 60:.1f} min",
        "Cameras": str(len(record.observation_spec.cameras)),
    }
    boxes = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f"""<div class="hero"><div><div class="big">{wins / len(episodes):.2f}</div>
<p>success, <b>[{low:.2f}, {high:.2f}]</b> over {len(episodes):,} episodes</p></div>
<dl class="facts">{boxes}</dl></div>"""


def _dimensions(record: DatasetRecord) -> str:
    episodes = list(record.episodes.values())
    if not episodes:
        return note("No episode can be read.")
    spec, seen = record.action_spec, record.observation_spec
    actions = spec.to_units(np.concatenate([e.actions for e in episodes]))
    rows = [_dimension(*each) for each in zip(spec.names, spec.units, actions.T, spec.low, spec.high, strict=True)]
    heads = ["", "unit", "low", "high", "mean", "deviation", "from low to high"]
    told = card("Actions", table(heads, rows, numbers=range(2, 6)))
    if not seen.proprio_names:
        return told
    proprio = np.concatenate([e.proprio for e in episodes])
    limits = proprio.min(0).tolist(), proprio.max(0).tolist()
    columns = zip(seen.proprio_names, seen.proprio_units, proprio.T, *limits, strict=True)
    heads = ["", "unit", "least", "greatest", "mean", "deviation", "from least to greatest"]
    return told + card("Proprioception", table(heads, [_dimension(*each) for each in columns], numbers=range(2, 6)))


def _dimension(name: str, unit: str, values: np.ndarray, low: float, high: float) -> list[str]:
    counts = np.histogram(values, bins=16, range=(float(low), float(high)))[0]
    shares = np.ceil(20 * counts / max(1, counts.max())).astype(int)
    bars = "".join(f'<i style="height:{share}px"></i>' for share in shares)
    numbers = [f"{x:.4g}" for x in (low, high, values.mean(dtype=np.float64), values.std(dtype=np.float64))]
    return [escape(name), escape(unit), *numbers, f'<span class="bars">{bars}</span>']


def _all_episodes(record: DatasetRecord, shown: set[int]) -> str:
    rows = [_episode_row(index, episode, index in shown) for index, episode in list(record.episodes.items())[:MOST_ROWS]]
    hidden = len(record.episodes) - len(rows)
    listing = card("", table(["episode", "", "steps", "ended", "reward", "instruction"], rows, numbers=(2, 4)))
    return listing + (note(f"And {hidden:,} more.") if hidden > 0 else "")


def _episode_row(index: int, episode: Episode, shown: bool) -> list[str]:
    number = f'<a href="#episode-{index}">{index}</a>' if shown else str(index)
    ended = "terminated" if episode.terminated[-1] else "truncated"
    lost = "" if episode.has_final_observation else ", last observation lost"
    reward = f"{episode.rewards.sum(dtype=np.float64):.4g}"
    return [number, badge(episode.success), str(len(episode)), ended + lost, reward, escape(episode.instruction)]


def _about(record: DatasetRecord) -> str:
    cameras = {f"camera {name}": " x ".join(map(str, shape)) for name, shape in record.observation_spec.cameras.items()}
    rows = [[escape(str(name)), escape(str(value))] for name, value in [*cameras.items(), *record.attributes.items()]]
    return card("", table(["", ""], rows, values=(1,)))


def _section(anchor: str, title: str, lead: str, body: str) -> str:
    return f'<section id="{anchor}"><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{body}</section>'

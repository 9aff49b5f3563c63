"""Pieces of HTML that the pages share.

Strings that come from files are escaped where they enter; titles, heads, bodies and cells are HTML already.
"""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from qtransformer.files import write_text


def document(title: str, header: str, body: str, footnote: str = "", script: str = "") -> str:
    """A whole page that asks nothing of the network."""
    style = Path(__file__).with_name("page.css").read_text()
    end = f"<script>\n{script}</script>\n" if script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · qtransformer</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
<header>
{header}
</header>
{body}
<footer>Made by qtransformer. {escape(footnote)}</footer>
</main>
{end}</body>
</html>
"""


def publish(page: Path, text: str) -> Path:
    """Write a page; it appears under its name when it is whole."""
    write_text(page, text)
    return page


def embedded_video(data: bytes) -> str:
    """The address of a video that travels inside the page."""
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


def card(title: str, body: str, fact: str = "", *, look: str = "", warning: str = "", after: str = "", classes: str = "") -> str:
    """A box with a heading, a fact beside it, and how to read it."""
    head = f"<h3>{title}{f'<span>{escape(fact)}</span>' if fact else ''}</h3>" if title else ""
    how = f'<p class="how"><b>Look for</b> {escape(look)}. <b>Warning sign:</b> {escape(warning)}.</p>' if look else ""
    return f'<div class="card {classes}">{head}{body}{how}{after}</div>'


def grid(cards: Iterable[str]) -> str:
    """Cards side by side, notes under them."""
    pieces = list(cards)
    notes = [piece for piece in pieces if piece.startswith('<p class="note"')]
    others = [piece for piece in pieces if piece not in notes]
    return (f'<div class="grid">{"".join(others)}</div>' if others else "") + "".join(notes)


def note(words: str, top: bool = False) -> str:
    """What is missing, said in its place."""
    return f'<p class="note"{" style=margin-top:28px" if top else ""}>{escape(words)}</p>'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = (), values: Iterable[int] = ()) -> str:
    """Rows under heads; `numbers` are columns set right, `values` those set in type for code."""
    classes = dict.fromkeys(numbers, ' class="number"') | dict.fromkeys(values, ' class="value"')
    heads = list(heads)
    top = "".join(f"<th{classes.get(i, '')}>{cell}</th>" for i, cell in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{classes.get(i, '')}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    top = f"<thead><tr>{top}</tr></thead>" if any(heads) else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def badge(success: bool) -> str:
    """Success or failure."""
    return '<span class="badge good">success</span>' if success else '<span class="badge bad">failure</span>'


def swatch(color: str, label: str) -> str:
    """A label with its colour."""
    return f'<span class="swatch" style="background:{color}"></span>{escape(label)}'

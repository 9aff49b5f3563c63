"""Drawing on video frames: anti-aliased lettering, bars, lines and images in about a millisecond each.

Lettering comes from the font that matplotlib ships, through its FreeType binding: legible, and the same on every machine.
"""

from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.ft2font import FT2Font

Color = tuple[int, int, int]
"""RGB, 0 to 255."""
Box = tuple[int, int, int, int]
"""x, y, width, height [pixel]."""


def rgb(code: str) -> Color:
    """`"#rrggbb"` to numbers."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


class Canvas:
    """An RGB image to draw on; whatever lies outside it is cut off."""

    def __init__(self, width: int, height: int, color: Color) -> None:
        self.pixels = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = color

    def fill(self, box: Box, color: Color) -> None:
        x, y, w, h = box
        self.pixels[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = color

    def image(self, picture: UInt8[np.ndarray, "h w 3"], box: Box) -> None:
        """Fit a picture into a box, keeping its proportions, centred. Enlarged pixels stay square, as the policy sees them."""
        x, y, w, h = box
        scale = min(w / picture.shape[1], h / picture.shape[0])
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if scale >= 2 else cv2.INTER_LINEAR
        left, top = x + (w - size[0]) // 2, y + (h - size[1]) // 2
        resized = cv2.resize(np.ascontiguousarray(picture), size, interpolation=how)
        self.pixels[top : top + size[1], left : left + size[0]] = resized

    def line(self, points: np.ndarray, color: Color, thickness: int = 2) -> None:
        """A line through points (k, 2) [pixel]."""
        fixed = np.round(np.asarray(points, np.float64) * 16).astype(np.int32)
        cv2.polylines(self.pixels, [fixed], False, color, thickness, cv2.LINE_AA, shift=4)

    def dot(self, x: float, y: float, radius: float, color: Color) -> None:
        cv2.circle(self.pixels, (round(x * 16), round(y * 16)), round(radius * 16), color, -1, cv2.LINE_AA, shift=4)

    def text(
        self, x: float, y: float, words: str, size: int, color: Color, *, bold: bool = False, align: float = 0.0, room: int = 0
    ) -> int:
        """Letters whose baseline is at `y`.

        Args:
            align: 0 starts at x, .5 is centred on it, 1 ends at it.
            room: width beyond which the words are shortened [pixel]; 0 never shortens.

        Returns:
            The width [pixel].
        """
        if room:
            words = shorten(words, size, bold, room)
        ink, descent = lettering(words, size, bold)
        height, width = ink.shape
        left, top = round(x - align * width), round(y - height + descent)
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.pixels.shape[1], left + width), min(self.pixels.shape[0], top + height)
        if x1 > x0 and y1 > y0:
            share = ink[y0 - top : y1 - top, x0 - left : x1 - left, None]
            area = self.pixels[y0:y1, x0:x1]
            area[:] = (area + (np.array(color, np.float32) - area) * share).astype(np.uint8)
        return width


@lru_cache(maxsize=2)
def _font(bold: bool) -> FT2Font:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)))


@lru_cache(maxsize=1024)
def lettering(words: str, size: int, bold: bool) -> tuple[np.ndarray, int]:
    """Coverage of words, float32 (h, w) in [0, 1], and how much of it lies under the baseline [pixel]."""
    if not words.strip():
        return np.zeros((1, round(size * 0.3 * len(words))), np.float32), 0
    font = _font(bold)
    font.set_size(size, 72)
    font.set_text(words, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return np.asarray(font.get_image(), np.float32) / 255, round(font.get_descent() / 64)


def shorten(words: str, size: int, bold: bool, room: int) -> str:
    """Words that fit into a width, with an ellipsis where they were cut."""
    if lettering(words, size, bold)[0].shape[1] <= room:
        return words
    while words and lettering(words + "…", size, bold)[0].shape[1] > room:
        words = words[:-1]
    return words.rstrip() + "…"

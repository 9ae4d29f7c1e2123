"""A picture of a result: three planes, the mask's outline, the uncertainty, the verdict."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Grey = NDArray[np.float32]
PANEL = 300
"""Edge of a panel's box in pixels; a plane is scaled to fit it, whatever the scan's size."""
GAP = 12
HEADER = 26
BAR_WIDTH = 56
LINE = 22
WINDOW = (1.0, 99.0)
"""Percentiles of the scan that become black and white."""
WINDOW_VOXELS = 1 << 20
"""So many voxels tell the percentiles of any scan, and sort in a tenth of a second."""
BACKGROUND = (17, 20, 24)
TEXT = (232, 234, 237)
FAINT = (150, 156, 164)
OUTLINE = (64, 224, 208)
BADGE = {"accept": (46, 160, 67), "flag": (219, 109, 40)}
HEAT_FULL = 0.5
"""Standard deviation shown as the hottest colour: the largest that values between 0 and 1 can have."""
HEAT = np.array([[0, 0, 0], [90, 20, 110], [200, 50, 70], [250, 150, 40], [255, 250, 170]], dtype=np.float64)
OUTLINE_PX = 2
COMPRESSION = 1
"""Of the PNG's data, 1 to 9: as for 6, the usual one, the picture takes a quarter more room and a third of the time."""


@dataclass(frozen=True)
class _Plane:
    """How a plane is cut: the axis through it, and the letters at its left, right, top and bottom."""

    title: str
    axis: int
    letters: tuple[str, str, str, str]


PLANES = (
    _Plane("axial", 2, ("R", "L", "A", "P")),
    _Plane("coronal", 1, ("R", "L", "S", "I")),
    _Plane("sagittal", 0, ("A", "P", "S", "I")),
)
"""Radiological convention: the patient's right is on the left of the picture, the front of a sagittal plane too."""


def render_preview(
    array: NDArray[np.floating],
    mask: NDArray[np.bool_],
    uncertainty: NDArray[np.floating],
    *,
    affine: NDArray[np.float64],
    caption: Sequence[str],
    verdict: Literal["accept", "flag"],
) -> bytes:
    """A PNG: above the scan with the mask's outline, below the same planes with the uncertainty, and the caption.

    ``array``, ``mask`` and ``uncertainty`` (standard deviation, 0 to 0.5) are (x, y, z) of the same scan on its own
    grid, ``affine`` (4, 4) its voxel to mm RAS+. Planes are cut through the middle of the mask, or of the scan
    where it is empty. The picture's size depends on the caption's lines alone.
    """
    orientation = io_orientation(affine)
    image, outlined, heat = (apply_orientation(one, orientation) for one in (array, mask, uncertainty))
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    centre, window = _centre(outlined), _window(image)
    lines = [line for text in caption for line in _wrapped(text)]
    canvas = _Canvas(lines, verdict)
    for column, plane in enumerate(PLANES):
        shown, inside, hot = (_cut(one, plane.axis, centre[plane.axis]) for one in (image, outlined, heat))
        size = _fit(shown.shape, np.delete(spacing, plane.axis))
        grey, inside, hot = (_scaled(cut, size) for cut in (_shaded(shown, window), inside, hot))
        edge = _edge(inside > 0.5)
        canvas.panel(column, 0, _paint(grey, edge), plane)
        canvas.panel(column, 1, _paint(_heated(grey, hot), edge), plane)
    return canvas.png()


def _window(image: NDArray[np.floating]) -> tuple[float, float]:
    """What becomes black and white; of a large scan, voxels at even distances stand for all."""
    step = math.ceil(max(1.0, image.size / WINDOW_VOXELS) ** (1 / 3))
    low, high = np.percentile(image[::step, ::step, ::step], WINDOW)
    return float(low), float(high)


def _shaded(plane: Grey, window: tuple[float, float]) -> Grey:
    low, high = window
    shades: Grey = np.clip((plane - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return shades


def _centre(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel in the middle of the mask, or of the scan where the mask is empty."""
    middle = []
    for axis, n in enumerate(mask.shape):
        area = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
        middle.append(round(float(area @ np.arange(n) / area.sum())) if area.any() else n // 2)
    return middle[0], middle[1], middle[2]


def _cut(array: NDArray[Any], axis: int, at: int) -> Grey:
    """One plane as rows from the top of the picture down, columns from its left: the two in-plane axes reversed."""
    plane: Grey = array[(slice(None),) * axis + (at,)].astype(np.float32)  # np.take would copy a turned scan whole
    return plane.T[::-1, ::-1]


def _fit(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> tuple[int, int]:
    """Width and height in pixels of a plane of (rows, columns) whose in-plane axes have these spacings."""
    width, height = shape[1] * float(spacing[0]), shape[0] * float(spacing[1])
    scale = PANEL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _scaled(cut: Grey, size: tuple[int, int]) -> Grey:
    resized = Image.fromarray(np.ascontiguousarray(cut)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The band of pixels within the mask that touches its border."""
    inner = inside
    for _ in range(OUTLINE_PX):  # every round takes off what has a pixel outside beside it
        around = np.pad(inner, 1, constant_values=True)
        inner = inner & around[2:, 1:-1] & around[:-2, 1:-1] & around[1:-1, 2:] & around[1:-1, :-2]
    return inside & ~inner


def _heated(grey: Grey, hot: Grey) -> NDArray[np.float64]:
    """The scan in half tone under the uncertainty's colours, (rows, columns, 3), 0 to 255."""
    level = np.clip(hot / HEAT_FULL, 0, 1)
    opacity = np.clip(level * 3, 0, 0.9)[..., None]
    blended: NDArray[np.float64] = (1 - opacity) * 150.0 * np.clip(grey, 0, 1)[..., None] + opacity * _colours(level)
    return blended


def _colours(level: NDArray[np.floating]) -> NDArray[np.float64]:
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(level, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)


def _paint(picture: NDArray[np.floating], edge: NDArray[np.bool_]) -> Image.Image:
    if picture.ndim == 2:
        picture = np.repeat(np.clip(picture, 0, 1)[..., None] * 255, 3, axis=-1)
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    pixels[edge] = OUTLINE
    return Image.fromarray(pixels)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _wrapped(text: str) -> list[str]:
    """Lines no wider than the picture, at most three of one text."""
    font, lines, width = _font(14), [""], 3 * PANEL + 2 * GAP + BAR_WIDTH
    for word in text[:600].split(" "):
        longer = f"{lines[-1]} {word}".strip() if lines[-1] else word
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines[:3]


class _Canvas:
    """The picture under work."""

    def __init__(self, lines: Sequence[str], verdict: Literal["accept", "flag"]) -> None:
        self._top = GAP + 40
        width = 4 * GAP + 3 * PANEL + BAR_WIDTH
        bottom = self._top + 2 * (PANEL + HEADER + GAP)
        self._image = Image.new("RGB", (width, bottom + LINE * max(1, len(lines)) + GAP), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)
        self._badge(verdict)
        self._bar()
        for number, line in enumerate(lines):
            position = (GAP, bottom + number * LINE)
            self._draw.text(position, line, fill=TEXT if number == 0 else FAINT, font=_font(14))

    def panel(self, column: int, row: int, picture: Image.Image, plane: _Plane) -> None:
        """Place a plane in its box, with its title and letters."""
        left = GAP + column * (PANEL + GAP)
        top = self._top + row * (PANEL + HEADER + GAP)
        title = plane.title if row == 0 else f"{plane.title}, uncertainty"
        self._draw.text((left, top + 2), title, fill=FAINT, font=_font(14))
        box = (left, top + HEADER, left + PANEL, top + HEADER + PANEL)
        self._draw.rectangle(box, fill=(0, 0, 0))
        self._image.paste(picture, (left + (PANEL - picture.width) // 2, box[1] + (PANEL - picture.height) // 2))
        middle = (left + PANEL // 2, box[1] + PANEL // 2)
        places = [
            (left + 5, middle[1], "lm"),
            (box[2] - 5, middle[1], "rm"),
            (middle[0], box[1] + 4, "mt"),
            (middle[0], box[3] - 4, "mb"),
        ]
        for letter, (x, y, anchor) in zip(plane.letters, places, strict=True):
            self._draw.text(
                (x, y), letter, fill=TEXT, font=_font(15), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0)
            )

    def png(self) -> bytes:
        """The finished picture."""
        buffer = io.BytesIO()
        self._image.save(buffer, format="PNG", compress_level=COMPRESSION)
        return buffer.getvalue()

    def _badge(self, verdict: Literal["accept", "flag"]) -> None:
        text = {"accept": "ACCEPT", "flag": "FLAG: have a person look"}[verdict]
        font = _font(20)
        width = font.getlength(text) + 28
        self._draw.rounded_rectangle((GAP, GAP, GAP + width, GAP + 32), radius=6, fill=BADGE[verdict])
        self._draw.text((GAP + 14, GAP + 16), text, fill=(255, 255, 255), font=font, anchor="lm")
        note = "radiological convention: the patient's right is on the left"
        self._draw.text((self._image.width - GAP, GAP + 16), note, fill=FAINT, font=_font(13), anchor="rm")

    def _bar(self) -> None:
        """The scale of the uncertainty, beside the second row."""
        left, top = GAP + 3 * (PANEL + GAP), self._top + PANEL + 2 * HEADER + GAP
        ramp = _colours(np.linspace(1, 0, PANEL))[:, None, :].repeat(14, axis=1).astype(np.uint8)
        self._image.paste(Image.fromarray(ramp), (left, top))
        for share in (0.0, 0.5, 1.0):
            y = top + round((1 - share) * (PANEL - 1))
            self._draw.text((left + 19, y), f"{share * HEAT_FULL:.2f}", fill=FAINT, font=_font(12), anchor="lm")
        self._draw.text((left, top - 10), "std. dev.", fill=FAINT, font=_font(12), anchor="ls")

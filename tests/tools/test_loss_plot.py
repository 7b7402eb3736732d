"""The course of a loss as a line of text, and as a picture."""

from __future__ import annotations

import math
import struct
import zlib

import pytest

from backpropagate.tools.canvas import GLYPHS, PALETTE, WHITE
from backpropagate.tools.loss_plot import HEIGHT, WIDTH, label, loss_plot, sparkline, ticks
from backpropagate.training.runs.loss_curve import LossCurve, LossPoint


def pixels(png: bytes) -> list[bytes]:
    """The rows of a picture of ours, decoded by the format's own rules."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
        chunks[name] = data
        at += 12 + length
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = [raw[start : start + WIDTH + 1] for start in range(0, len(raw), WIDTH + 1)]
    assert len(rows) == HEIGHT and all(row[0] == 0 and max(row) < len(PALETTE) for row in rows)
    return [row[1:] for row in rows]


def curve(losses: list[float], evals: list[float] | None = None) -> LossCurve:
    points = [LossPoint(index, index + 1, loss) for index, loss in enumerate(losses)]
    held_out = [LossPoint(index, index * 10, loss) for index, loss in enumerate(evals or [])]
    return LossCurve(len(points), points, held_out, [])


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        ([4.0, 3.0, 2.0, 1.0], "█▆▃▁"),
        ([1.0, 1.0], "▁▁"),
        ([2.0, math.nan, 1.0], "█▁"),
        ([1.0], ""),
        ([], ""),
    ],
)
def test_a_row_of_bars_goes_from_the_lowest_to_the_highest_loss(losses: list[float], line: str) -> None:
    assert sparkline(losses) == line


def test_the_means_of_equal_parts_show_the_whole_run() -> None:
    assert curve([1.0, 3.0] * 50).outline == pytest.approx([2.0] * 20, abs=0.34)
    assert curve([5.0, 4.0]).outline == [5.0, 4.0] and curve([]).outline == []


@pytest.mark.parametrize(
    "losses", [[4.0, 2.0, 1.0], [1e-7, 2e-7], [3e6, 1e6], [2.0], [0.0, 0.0], [-1.0, 1.0], [math.nan, 1.0]]
)
def test_a_picture_has_its_line_whatever_the_losses_are(losses: list[float]) -> None:
    drawn = loss_plot(curve(losses, [losses[-1]]))
    assert drawn and len(drawn) < 10_000
    rows = pixels(drawn)
    used = set(b"".join(rows))
    assert used == set(range(len(PALETTE))) and rows[0].count(WHITE) == WIDTH


def test_there_is_no_picture_without_losses() -> None:
    assert loss_plot(curve([])) is None and loss_plot(curve([math.inf])) is None


@pytest.mark.parametrize("ends", [(0.13, 2.9), (0, 0), (1e-9, 1e-8), (-5, 3), (0, 123_456)])
def test_ticks_are_few_enclose_both_ends_and_have_drawable_names(ends: tuple[float, float]) -> None:
    found = ticks(*ends)
    assert 2 <= len(found) <= 7 and found[0] <= ends[0] and found[-1] >= ends[1]
    assert all(set(label(value)) <= GLYPHS.keys() for value in found)

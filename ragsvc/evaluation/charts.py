"""Draws the report's figures as inline SVG. Colours are classes, which the page suits to light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from ragsvc.cli.output import shortened
from ragsvc.evaluation.elements import Element, element
from ragsvc.evaluation.measures.bootstrap import Estimate

_WIDTH = 760.0
_LABELS = 150.0
_LABEL_CHARACTERS = 20
_BAR = 13.0
_GAP = 12.0
_AXIS = 22.0
_CURVES_HEIGHT = 230.0
_STRIP_WIDTH = 900.0
_CELL_HEIGHT = 22.0
_CELL = (5.0, 20.0)


def interval_bars(groups: Sequence[tuple[str, Sequence[Estimate]]], names: Sequence[str]) -> Element:
    """Bars from 0 to 100 with their 95 % intervals, one group per measure, one bar per setting."""
    scale = (_WIDTH - _LABELS - 60) / 100
    group_height = _BAR * len(names) + _GAP
    height = group_height * len(groups) + _AXIS
    figure = _svg(_WIDTH, height, "Measures of each setting with 95 percent intervals")
    for mark in range(0, 101, 20):
        x = _LABELS + mark * scale
        figure.append(_line(x, 0, x, height - _AXIS, "grid"))
        figure.append(_text(x, height - 6, str(mark), "middle"))
    for group, (title, estimates) in enumerate(groups):
        top = group * group_height + _GAP / 2
        figure.append(_text(_LABELS - 10, top + _BAR * len(names) / 2 + 4, title, "end", "label"))
        for index, one in enumerate(estimates):
            y = top + index * _BAR
            words = f"{names[index]}: {title} {100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})"
            bar = element("g", element("title", words))
            bar.append(_rectangle(_LABELS, y + 1, 100 * one.value * scale, _BAR - 2, series(index)))
            low, high, middle = _LABELS + 100 * one.low * scale, _LABELS + 100 * one.high * scale, y + _BAR / 2
            bar.append(_line(low, middle, high, middle, "whisker"))
            bar.extend(_line(end, middle - 3, end, middle + 3, "whisker") for end in (low, high))
            bar.append(_text(max(high, _LABELS) + 6, middle + 4, f"{100 * one.value:.1f}", "start", "value"))
            figure.append(bar)
    return figure


def latency_curves(columns: Sequence[Sequence[float]], names: Sequence[str]) -> Element:
    """Which share of the searches was answered within how many milliseconds."""
    figure = _svg(_WIDTH, _CURVES_HEIGHT, "Share of searches answered within a time")
    longest = max((max(column) for column in columns if column), default=1.0) * 1.03
    left, bottom, right = 46.0, _CURVES_HEIGHT - _AXIS - 8, _WIDTH - 16
    high = bottom - 12

    def at(ms: float, share: float) -> tuple[float, float]:
        return left + ms / longest * (right - left), bottom - share * high

    for share in (0.0, 0.5, 0.95, 1.0):
        _, y = at(0, share)
        figure.append(_line(left, y, right, y, "grid"))
        if share != 1.0:  # too close to 95
            figure.append(_text(left - 6, y + 4, f"{100 * share:.0f} %", "end"))
    for step in range(6):
        x, _ = at(longest * step / 5, 0)
        figure.append(_text(x, _CURVES_HEIGHT - 8, f"{longest * step / 5:.0f} ms", "middle" if step < 5 else "end"))
    for index, column in enumerate(columns):
        points = [at(0, 0)]
        for place, ms in enumerate(sorted(column), start=1):
            points += [at(ms, (place - 1) / len(column)), at(ms, place / len(column))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        figure.append(element("polyline", element("title", names[index]), points=path, class_=f"curve {series(index)}"))
    return figure


def rank_strip(rows: Sequence[Sequence[tuple[int | None, str]]], names: Sequence[str]) -> Element:
    """One row per setting, one cell per question, coloured by the place of the first right passage."""
    count = max(1, len(rows[0]))
    cell = min(_CELL[1], max(_CELL[0], (_STRIP_WIDTH - _LABELS) / count))
    width = _LABELS + cell * count + 4
    figure = _svg(width, _CELL_HEIGHT * len(rows), "Place of the first right passage, question by question", fixed=True)
    for index, row in enumerate(rows):
        y = index * _CELL_HEIGHT
        figure.append(_text(_LABELS - 10, y + 15, shortened(names[index], _LABEL_CHARACTERS), "end", "label"))
        for place, (rank, words) in enumerate(row):
            title = element("title", f"{words}: {'not found' if rank is None else f'place {rank}'}")
            square = _rectangle(_LABELS + place * cell, y + 2, cell - 1, _CELL_HEIGHT - 4, rank_class(rank))
            square.append(title)
            figure.append(square)
    return figure


def rank_class(rank: int | None) -> str:
    """The colour class of a place.

    >>> [rank_class(rank) for rank in (1, 3, 5, 10, 11, None)]
    ['rank-1', 'rank-3', 'rank-5', 'rank-10', 'rank-more', 'rank-none']
    """
    if rank is None:
        return "rank-none"
    return next((f"rank-{least}" for least in (1, 3, 5, 10) if rank <= least), "rank-more")


def series(index: int) -> str:
    """The colour class of a setting."""
    return f"series-{index % 6}"


def _svg(width: float, height: float, label: str, *, fixed: bool = False) -> Element:
    size = {"width": width, "height": height} if fixed else {}
    return element("svg", viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=label, **size)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> Element:
    return element("rect", x=x, y=y, width=width, height=height, class_=kind)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Element:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=kind)

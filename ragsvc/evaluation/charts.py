"""Computes the geometry of the report's charts; the HTML template draws them as inline SVG.

Coordinates are pixels from the top left corner. ``kind`` is a CSS class that carries the colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ragsvc.evaluation.measures.bootstrap import Estimate

_WIDTH = 760.0
_LABEL_WIDTH = 150.0
_VALUE_WIDTH = 60.0
_BAR_HEIGHT = 13.0
_GROUP_GAP = 12.0
_AXIS_HEIGHT = 22.0
_CURVES_HEIGHT = 230.0
_STRIP_WIDTH = 900.0
_ROW_HEIGHT = 22.0
_MIN_CELL, _MAX_CELL = 5.0, 20.0
_COLOURS = 6


class AxisMark(msgspec.Struct, frozen=True):
    position: float
    label: str
    anchor: str = "middle"


class IntervalBar(msgspec.Struct, frozen=True):
    """A bar from ``IntervalChart.left``, with a whisker from ``low`` to ``high``."""

    description: str
    kind: str
    top: float
    width: float
    low: float
    high: float
    value: str


class IntervalGroup(msgspec.Struct, frozen=True):
    title: str
    middle: float
    bars: list[IntervalBar]


class IntervalChart(msgspec.Struct, frozen=True):
    width: float
    height: float
    left: float
    bottom: float
    bar_height: float
    marks: list[AxisMark]
    groups: list[IntervalGroup]


class LatencyCurve(msgspec.Struct, frozen=True):
    name: str
    kind: str
    points: str


class LatencyChart(msgspec.Struct, frozen=True):
    width: float
    height: float
    left: float
    right: float
    shares: list[AxisMark]
    times: list[AxisMark]
    curves: list[LatencyCurve]


class RankCell(msgspec.Struct, frozen=True):
    left: float
    kind: str
    description: str


class RankRow(msgspec.Struct, frozen=True):
    name: str
    top: float
    cells: list[RankCell]


class RankStrip(msgspec.Struct, frozen=True):
    width: float
    height: float
    left: float
    cell_width: float
    row_height: float
    rows: list[RankRow]


def interval_chart(groups: Sequence[tuple[str, Sequence[Estimate]]], names: Sequence[str]) -> IntervalChart:
    """Bars from 0 to 100 with 95 % confidence intervals: a group for each measure, a bar for each setting."""
    scale = (_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / 100
    group_height = _BAR_HEIGHT * len(names) + _GROUP_GAP
    height = group_height * len(groups) + _AXIS_HEIGHT

    def bar(title: str, index: int, estimate: Estimate, top: float) -> IntervalBar:
        value, low, high = (100 * share for share in (estimate.value, estimate.low, estimate.high))
        return IntervalBar(
            description=f"{names[index]}: {title} {value:.1f} ({low:.1f} to {high:.1f})",
            kind=series_class(index),
            top=top,
            width=value * scale,
            low=_LABEL_WIDTH + low * scale,
            high=_LABEL_WIDTH + high * scale,
            value=f"{value:.1f}",
        )

    drawn: list[IntervalGroup] = []
    for number, (title, estimates) in enumerate(groups):
        top = number * group_height + _GROUP_GAP / 2
        bars = [bar(title, index, estimate, top + index * _BAR_HEIGHT) for index, estimate in enumerate(estimates)]
        drawn.append(IntervalGroup(title, top + _BAR_HEIGHT * len(names) / 2, bars))
    return IntervalChart(
        width=_WIDTH,
        height=height,
        left=_LABEL_WIDTH,
        bottom=height - _AXIS_HEIGHT,
        bar_height=_BAR_HEIGHT,
        marks=[AxisMark(_LABEL_WIDTH + mark * scale, str(mark)) for mark in range(0, 101, 20)],
        groups=drawn,
    )


def latency_chart(columns: Sequence[Sequence[float]], names: Sequence[str]) -> LatencyChart:
    """Cumulative share of the searches answered within a number of milliseconds, a curve for each setting."""
    longest = max((max(column) for column in columns if column), default=1.0) * 1.03
    left, bottom, right = 46.0, _CURVES_HEIGHT - _AXIS_HEIGHT - 8, _WIDTH - 16
    high = bottom - 12

    def at(ms: float, share: float) -> tuple[float, float]:
        return left + ms / longest * (right - left), bottom - share * high

    curves: list[LatencyCurve] = []
    for index, column in enumerate(columns):
        points = [at(0, 0)]
        for count, ms in enumerate(sorted(column), start=1):
            points += [at(ms, (count - 1) / len(column)), at(ms, count / len(column))]
        curves.append(LatencyCurve(names[index], series_class(index), " ".join(f"{x:.1f},{y:.1f}" for x, y in points)))
    return LatencyChart(
        width=_WIDTH,
        height=_CURVES_HEIGHT,
        left=left,
        right=right,
        # no label at 100 %, which would overlap that of 95 %
        shares=[
            AxisMark(at(0, share)[1], f"{100 * share:.0f} %" if share != 1.0 else "", "end")
            for share in (0.0, 0.5, 0.95, 1.0)
        ],
        times=[
            AxisMark(at(longest * step / 5, 0)[0], f"{longest * step / 5:.0f} ms", "middle" if step < 5 else "end")
            for step in range(6)
        ],
        curves=curves,
    )


def rank_strip(rows: Sequence[Sequence[tuple[int | None, str]]], names: Sequence[str]) -> RankStrip:
    """A row for each setting with a cell for each question, coloured by the rank of the first correct passage.

    ``rows`` has the rank and the description of each question by setting.
    """
    count = max(1, len(rows[0]))
    cell = min(_MAX_CELL, max(_MIN_CELL, (_STRIP_WIDTH - _LABEL_WIDTH) / count))
    return RankStrip(
        width=_LABEL_WIDTH + cell * count + 4,
        height=_ROW_HEIGHT * len(rows),
        left=_LABEL_WIDTH,
        cell_width=cell,
        row_height=_ROW_HEIGHT,
        rows=[
            RankRow(
                name=names[index],
                top=index * _ROW_HEIGHT,
                cells=[
                    RankCell(
                        left=_LABEL_WIDTH + column * cell,
                        kind=rank_class(rank),
                        description=f"{description}: {'not found' if rank is None else f'place {rank}'}",
                    )
                    for column, (rank, description) in enumerate(row)
                ],
            )
            for index, row in enumerate(rows)
        ],
    )


def rank_class(rank: int | None) -> str:
    """The CSS class of a rank.

    >>> [rank_class(rank) for rank in (1, 3, 5, 10, 11, None)]
    ['rank-1', 'rank-3', 'rank-5', 'rank-10', 'rank-more', 'rank-none']
    """
    if rank is None:
        return "rank-none"
    return next((f"rank-{limit}" for limit in (1, 3, 5, 10) if rank <= limit), "rank-more")


def series_class(index: int) -> str:
    """The CSS class of a setting."""
    return f"series-{index % _COLOURS}"

"""This is where the pages' plots are drawn: one look for all, in both themes, its numbers also told as text.

Drawn as SVG, so that its colours are the stylesheet's own and follow the theme.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nicegui import ui

from qwenbox.console import figures, parts

# Of an axis of time, by what begins at a mark.
_CLOCK = {
    "year": "{yyyy}",
    "month": "{MM}-{dd}",
    "day": "{MM}-{dd}",
    "hour": "{HH}:{mm}",
    "minute": "{HH}:{mm}",
    "second": "{HH}:{mm}:{ss}",
    "millisecond": "{HH}:{mm}:{ss}",
    "none": "{HH}:{mm}",
}
_INK, _SOFT, _LINE = "var(--ink)", "var(--soft)", "var(--line)"
_WORDS = {"color": _SOFT, "fontSize": 12}

# What JavaScript writes for a number: 12,300 as 12.3k on an axis, whole in a tooltip.
_SHORT = "(value) => Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3}).format(value)"
_WHOLE = "(value) => value == null ? '–' : Intl.NumberFormat('en', {maximumFractionDigits: 6}).format(value)"
_SECONDS = (
    "(value) => value == null ? '–' : value >= 1 ? (+value.toFixed(2)) + ' s' "
    ": (+(value * 1000).toFixed(value < 0.0001 ? 3 : value < 0.01 ? 2 : 0)) + ' ms'"
)
_PERCENT = "(value) => value == null ? '–' : (+value.toFixed(1)) + ' %'"


class Line(NamedTuple):
    """name: as shown. values: one for each moment or label, None for none. series: which of the stylesheet's colours, 1 to 4."""

    name: str
    values: Sequence[float | None]
    series: int = 1


class Unit(NamedTuple):
    """How a plot's values are written. axis, told: JavaScript functions. most: one that says where the axis ends; "": by the values."""

    axis: str
    told: str
    is_whole: bool = False
    most: str = ""


COUNT = Unit(_SHORT, _WHOLE, is_whole=True)
SECONDS = Unit(_SECONDS, _SECONDS)
PERCENT = Unit(_PERCENT, _PERCENT, most="(found) => found.max > 50 ? 100 : null")


def money(currency: str) -> Unit:
    sign = figures.sign(currency)
    return Unit(f"(value) => '{sign}' + ({_SHORT})(value)", f"(value) => '{sign}' + ({_WHOLE})(value)")


class Plot:
    """A card with a heading, a figure and its plot. What changes is given to `show`."""

    def __init__(self, title: str, unit: Unit, *, kind: str = "line", mark: str = "", is_stacked: bool = False) -> None:
        self._unit, self._kind, self._is_stacked = unit, kind, is_stacked
        self._title = title
        with ui.element("section").classes("card plot-card").props(f"data-testid={mark}" if mark else ""):
            with ui.element("div").classes("row between"):
                parts.text("h2", title)
                self._told = ui.label().classes("plot-told")
            self._chart = ui.echart(_frame(unit, _labels(()), []), renderer="svg").classes("plot").props('role="img"')

    def show(self, told: str, lines: Sequence[Line], *, moments: Sequence[float] = (), labels: Sequence[str] = ()) -> None:
        """told: the plot in one short text. moments: seconds since 1970 for a plot over time; else labels."""
        self._told.set_text(told)
        self._chart.props["aria-label"] = f"{self._title}: {told}"
        axis = _moments(moments) if moments else _labels(labels)
        frame = _frame(self._unit, axis, [self._series(line, moments) for line in lines])
        self._chart.options.update(frame)  # pyright: ignore[reportUnknownMemberType]  (NiceGUI's dict says nothing of what is in it)
        self._chart.update()

    def _series(self, line: Line, moments: Sequence[float]) -> Mapping[str, object]:
        color = f"var(--series-{line.series})"
        values: list[object] = list(line.values)
        if moments:
            values = [[1000 * at, value] for at, value in zip(moments, line.values, strict=True)]
        shared: dict[str, object] = {"name": line.name, "type": self._kind, "data": values, "color": color, "emphasis": {"disabled": True}}
        if self._is_stacked:
            shared["stack"] = "all"
        if self._kind == "bar":
            return shared | {"barMaxWidth": 28, "itemStyle": {"color": color}}
        area = {"areaStyle": {"color": color, "opacity": 0.12}} if self._is_stacked or line.series == 1 else {}
        # A value with none beside it is no line: only a dot shows it.
        dots = [
            {"value": value, "symbol": "circle" if is_alone else "none"}
            for value, is_alone in zip(values, _alone(line.values), strict=True)
        ]
        return shared | area | {"data": dots, "symbolSize": 6, "lineStyle": {"width": 2, "color": color}, "connectNulls": False}


def _alone(values: Sequence[float | None]) -> list[bool]:
    """For each whether it stands between two that are none."""
    around = [None, *values, None]
    return [before is None and after is None for before, after in zip(around, around[2:], strict=False)]


def _frame(unit: Unit, axis: Mapping[str, object], series: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {
        "animation": False,
        "textStyle": {"fontFamily": "system-ui, sans-serif", "color": _SOFT},
        "grid": {"left": 8, "right": 24, "top": 36 if len(series) > 1 else 12, "bottom": 4, "containLabel": True},
        "legend": {
            "show": len(series) > 1,
            "left": 0,
            "top": 0,
            "itemWidth": 14,
            "itemHeight": 8,
            "textStyle": _WORDS,
            "inactiveColor": _LINE,
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "var(--card)",
            "borderColor": _LINE,
            "textStyle": {"color": _INK, "fontSize": 13},
            "axisPointer": {"type": "line", "lineStyle": {"color": _SOFT, "type": "dashed"}},
            ":valueFormatter": unit.told,
        },
        "xAxis": axis,
        "yAxis": {
            "type": "value",
            "min": 0,
            "splitNumber": 3,
            "minInterval": 1 if unit.is_whole else 0,
            "axisLabel": {**_WORDS, ":formatter": unit.axis},
            "splitLine": {"lineStyle": {"color": _LINE}},
            **({":max": unit.most} if unit.most else {}),
        },
        "series": series,
    }


def _moments(moments: Sequence[float]) -> dict[str, object]:
    # Half a step on either side, so that the first and the last bar are whole.
    half = (moments[1] - moments[0]) / 2 if len(moments) > 1 else 0
    axis = _axis()
    axis["axisLabel"] = {**_WORDS, "hideOverlap": True, "margin": 10, "formatter": _CLOCK}
    return axis | {"type": "time", "min": 1000 * (moments[0] - half), "max": 1000 * (moments[-1] + half), "splitNumber": 5}


def _labels(labels: Sequence[str]) -> dict[str, object]:
    return _axis() | {"type": "category", "data": list(labels)}


def _axis() -> dict[str, object]:
    return {
        "axisLabel": {**_WORDS, "hideOverlap": True, "margin": 10, "width": 120, "overflow": "truncate"},
        "axisLine": {"lineStyle": {"color": _LINE}},
        "axisTick": {"show": False},
        "splitLine": {"show": False},
    }

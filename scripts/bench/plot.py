"""The picture: small multiples, one panel per case, each with its own scale. CPU per request above, latency below."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from math import ceil
from pathlib import Path

from .cases import IDLE_CASES, ONE_SHARD, POSTERN_TWO_SHARDS, TWO_SHARDS, Case, IdleCase
from .machine import TITLES
from .results import Results

COLOURS = {"nginx": "#6d9f71", "haproxy": "#5a87b8", "envoy": "#a58bb8", "h2o": "#b89b5a",
           "postern": "#d9532c"}
INK, QUIET, LINE, PAGE, CARD = "#22252a", "#6b7280", "#e3e5e8", "#f6f6f4", "#ffffff"
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"

MARGIN, GAP = 32, 14
PANEL_WIDTH, PANEL_HEIGHT = 240, 262
HEADER_HEIGHT, FOOTER_HEIGHT, ROW_TITLE = 96, 50, 34
COLUMNS_MAX = 7
BAR_WIDTH = 32
BAR_TOP, BAR_BOTTOM = 72, 42
"""Room above and below the bars, inside a panel."""


@dataclass(frozen=True)
class Bar:
    """One bar. `top` and `bottom` are the labels above and below it."""

    colour: str
    value: float
    low: float
    high: float
    top: str
    bottom: str
    strong: bool
    behind: float | None = None
    """The height of a pale bar behind this one, which then carries `top`."""

    @property
    def peak(self) -> float:
        """The highest thing drawn."""
        return max(self.high, self.behind or 0)


@dataclass(frozen=True)
class Panel:
    """One case of one metric."""

    title: str
    subtitle: str
    bars: list[Bar]


@dataclass
class Canvas:
    """Collects elements."""

    elements: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: float, colour: str = INK, anchor: str = "start",
             bold: bool = False) -> None:
        """One line of text."""
        weight = ' font-weight="600"' if bold else ""
        self.elements.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}" '
                             f'text-anchor="{anchor}"{weight}>{escape(text)}</text>')

    def heading(self, x: float, y: float, title: str, note: str) -> None:
        """A bold title, and a quiet note after it on the same line."""
        self.elements.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="15" font-weight="600" fill="{INK}">'
                             f'{escape(title)}<tspan dx="12" font-size="12" font-weight="400" fill="{QUIET}">'
                             f'{escape(note)}</tspan></text>')

    def box(self, x: float, y: float, width: float, height: float, colour: str, radius: float = 0,
            extra: str = "") -> None:
        """A filled rectangle."""
        self.elements.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                             f'rx="{radius:g}" fill="{colour}"{extra}/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> None:
        """A straight line."""
        self.elements.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
                             f'stroke-width="{width:g}" stroke-linecap="round"/>')


def write_svg(path: Path, about: dict[str, str], results: Results, proxies: list[str], cases: list[Case]) -> None:
    """Draws the run."""
    compared = [case for case in cases if case.compared]
    upper = [_cpu_panel(results, proxies, case) for case in compared]
    upper += [_idle_panel(results, proxies, case) for case in IDLE_CASES]
    lower = [_latency_panel(results, proxies, case) for case in compared] + [_shards_panel(results)]
    rows = [(title, note, line)
            for title, note, panels in (
                ("CPU microseconds per request",
                 "below each bar: ratio to the best of the case's references; thin line: lowest to highest", upper),
                ("Latency", "solid and below: p50; pale and above: p99", lower))
            for line in _lines([panel for panel in panels if panel.bars])]
    columns = max((len(panels) for _, _, panels in rows), default=0)
    width = max(2 * MARGIN + columns * PANEL_WIDTH + (columns - 1) * GAP, 900)
    height = HEADER_HEIGHT + len(rows) * (ROW_TITLE + PANEL_HEIGHT + GAP) + FOOTER_HEIGHT

    canvas = Canvas()
    canvas.box(0, 0, width, height, PAGE)
    _header(canvas, width, proxies)
    y = HEADER_HEIGHT
    for title, note, panels in rows:
        canvas.heading(MARGIN, y + 20, title, note)
        for column, panel in enumerate(panels):
            _draw(canvas, MARGIN + column * (PANEL_WIDTH + GAP), y + ROW_TITLE, panel)
        y += ROW_TITLE + PANEL_HEIGHT + GAP
    canvas.text(MARGIN, y + 14, " · ".join(about[name] for name in ("CPU", "Kernel", "Date") if name in about)
                + f" · commit {about.get('Commit', '')}", 11, QUIET)
    canvas.text(MARGIN, y + 31, f"{about.get('Versions', '')} · {about.get('Load', '')}", 11, QUIET)
    body = "\n".join(canvas.elements)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                    f'height="{height}" font-family="{FONT}">\n<title>Postern beside other proxies</title>\n{body}\n'
                    "</svg>\n")


def _lines(panels: list[Panel]) -> Iterator[list[Panel]]:
    """As few lines as hold them, all about as long."""
    count = ceil(len(panels) / COLUMNS_MAX)
    for line in range(count):
        yield panels[line * len(panels) // count:(line + 1) * len(panels) // count]


def _header(canvas: Canvas, width: float, proxies: list[str]) -> None:
    canvas.text(MARGIN, 46, "Postern beside other proxies", 24, bold=True)
    canvas.text(MARGIN, 70, "One worker pinned to one core; keep-alive on both sides; lower is better everywhere", 13,
                QUIET)
    x = width - MARGIN
    for proxy in reversed(proxies):
        x -= 8.2 * len(TITLES[proxy])
        canvas.text(x, 46, TITLES[proxy], 14, bold=proxy == "postern")
        x -= 20
        canvas.box(x, 34.5, 13, 13, COLOURS[proxy], 3)
        x -= 18


def _bars(results: Results, proxies: list[str], case: str, metric: str,
          show: Callable[[float], str]) -> list[Bar]:
    bars = []
    for proxy in proxies:
        values, median = results.values(case, proxy, metric), results.median(case, proxy, metric)
        if median is None:
            continue
        ratio = results.ratio(case, proxy, metric)
        bars.append(Bar(COLOURS[proxy], median, min(values), max(values), show(median),
                        "" if ratio is None else f"{ratio:.2f}", proxy == "postern"))
    return bars


def _cpu_panel(results: Results, proxies: list[str], case: Case) -> Panel:
    return Panel(case.name, case.title, _bars(results, proxies, case.name, "cpu_us", _short))


def _idle_panel(results: Results, proxies: list[str], case: IdleCase) -> Panel:
    return Panel(case.name, f"KiB per {case.title}",
                 _bars(results, proxies, case.name, "kib_per_connection", _short))


def _latency_panel(results: Results, proxies: list[str], case: Case) -> Panel:
    bars = []
    for proxy in proxies:
        p50, p99 = (results.median(case.name, proxy, metric) for metric in ("p50_us", "p99_us"))
        if p50 is not None and p99 is not None:
            bars.append(Bar(COLOURS[proxy], p50, p50, p50, _duration(p99), _duration(p50), proxy == "postern", p99))
    return Panel(case.name, case.title, bars)


def _shards_panel(results: Results) -> Panel:
    bars = []
    for case, proxy, label in ((ONE_SHARD, "postern", "1 shard"), (TWO_SHARDS, POSTERN_TWO_SHARDS, "2 shards")):
        values, median = results.values(case.name, proxy, "cpu_us"), results.median(case.name, proxy, "cpu_us")
        if median is not None:
            bars.append(Bar(COLOURS["postern"], median, min(values), max(values), _short(median), label, True))
    return Panel("shards", "CPU us per request, Postern", bars)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _duration(us: float) -> str:
    return f"{us:.0f}us" if us < 1000 else f"{us / 1000:.1f}ms" if us < 100_000 else f"{us / 1000:.0f}ms"


def _draw(canvas: Canvas, x: float, y: float, panel: Panel) -> None:
    canvas.box(x, y, PANEL_WIDTH, PANEL_HEIGHT, CARD, 8, f' stroke="{LINE}"')
    canvas.text(x + 16, y + 26, panel.title, 14, bold=True)
    canvas.text(x + 16, y + 44, panel.subtitle, 11.5, QUIET)
    base = y + PANEL_HEIGHT - BAR_BOTTOM
    scale = (PANEL_HEIGHT - BAR_TOP - BAR_BOTTOM) / (max(bar.peak for bar in panel.bars) or 1)
    space = (PANEL_WIDTH - 24) / len(panel.bars)
    for position, bar in enumerate(panel.bars):
        centre = x + 12 + space * (position + 0.5)
        left = centre - BAR_WIDTH / 2
        if bar.behind is not None:
            canvas.box(left, base - bar.behind * scale, BAR_WIDTH, bar.behind * scale, bar.colour, 2,
                       ' fill-opacity="0.28"')
        canvas.box(left, base - bar.value * scale, BAR_WIDTH, bar.value * scale, bar.colour, 2)
        if bar.high > bar.low:
            canvas.line(centre, base - bar.high * scale, centre, base - bar.low * scale, INK, 1.2)
        canvas.text(centre, base - bar.peak * scale - 6, bar.top, 11.5, anchor="middle", bold=bar.strong)
        canvas.text(centre, base + 20, bar.bottom, 11.5, bar.colour if bar.strong else QUIET, "middle", bar.strong)
    canvas.line(x + 12, base, x + PANEL_WIDTH - 12, base, QUIET, 1)

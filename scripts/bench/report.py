"""The report in Markdown, and the raw figures as JSON."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .cases import IDLE_CASES, ONE_SHARD, POSTERN_TWO_SHARDS, REFERENCES, TWO_SHARDS, Case, IdleCase
from .goals import Verdict
from .machine import TITLES
from .results import DISTURBED, Results

Row = list[str]


def write_raw(path: Path, about: dict[str, str], results: Results) -> None:
    """Every cell with every metric, in the order in which they were measured."""
    skipped = [{"case": case, "proxy": proxy, "reason": reason} for (case, proxy), reason in results.skipped.items()]
    cells = [asdict(cell) for cell in results.cells]
    path.write_text(json.dumps({"about": about, "skipped": skipped, "cells": cells}, indent=1) + "\n")


def write_markdown(path: Path, about: dict[str, str], results: Results, proxies: list[str], cases: list[Case],
                   verdicts: list[Verdict]) -> None:
    """The whole report. `verdicts` is empty when Postern did not run."""
    parts = ["# Postern beside other proxies", "![CPU and latency per case](report.svg)", _about(about, results)]
    if invalid := results.invalid():
        parts += ["**This run is invalid.** What these cells measured is not a proxy that forwards and reuses "
                  "connections:",
                  "\n".join(f"- {cell.case} {cell.number}, {cell.proxy}: {'; '.join(cell.invalid)}"
                            for cell in invalid)]
    if results.skipped:
        parts += ["**Not measured:**", "\n".join(f"- {case} on {TITLES.get(proxy, proxy)}: {reason}"
                                                 for (case, proxy), reason in results.skipped.items())]
    compared = [case for case in cases if case.compared]
    parts += ["## CPU microseconds per request", _overview(results, proxies, compared)]
    if verdicts:
        parts += ["## Goals", _goals(verdicts)]
    for case in compared:
        parts += [f"## {case.name}: {case.title}", f"{case.setup}. {_ratios_are_to(case)}",
                  _case(results, proxies, case.name)]
    for idle in IDLE_CASES:
        if any(cell.case == idle.name for cell in results.cells):
            parts += [f"## {idle.name}: memory of idle connections", f"{idle.setup}. {_ratios_are_to(idle)}",
                      _idle(results, proxies, idle)]
    if results.median(TWO_SHARDS.name, POSTERN_TWO_SHARDS, "cpu_us") is not None:
        parts += ["## shards: one and two, the same load for each shard", _shards(results)]
    path.write_text("\n\n".join(parts) + "\n")


def _table(header: Row, rows: list[Row]) -> str:
    alignment = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, alignment, *rows])


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _with_range(results: Results, case: str, proxy: str, metric: str, digits: int = 1) -> str:
    values = results.values(case, proxy, metric)
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _ratios_are_to(case: Case | IdleCase) -> str:
    *names, last = (TITLES[proxy] for proxy in REFERENCES[case.name])
    return f"Ratios are to the best of {', '.join(names)} and {last}." if names else f"Ratios are to {last}."


def _quartiles(spread: tuple[float, float] | None) -> str:
    return "-" if spread is None else f"{spread[0]:.2f}-{spread[1]:.2f}"


def _about(about: dict[str, str], results: Results) -> str:
    facts = [f"- {name}: {value}" for name, value in about.items()]
    others = [cell.metrics["others_share"] for cell in results.cells if "others_share" in cell.metrics]
    if others:
        facts.append(f"- Disturbance: other programs took {statistics.median(others):.1%} of a core in the median "
                     f"cell, {max(others):.1%} in the worst, more than {DISTURBED:.0%} in "
                     f"{len(results.disturbed())} of {len(others)}")
    facts.append("- Figures are medians, in brackets the lowest and the highest. A ratio is that of two medians; the "
                 "quartiles beside it are of the single ratios, each of two measurements made one after the other")
    return "\n".join(facts)


def _overview(results: Results, proxies: list[str], cases: list[Case]) -> str:
    rows = []
    for case in cases:
        row = [f"{case.name}: {case.title}"]
        for proxy in proxies:
            value, ratio = (of(case.name, proxy, "cpu_us") for of in (results.median, results.ratio))
            row.append(_number(value) + (f" ({ratio:.2f})" if ratio is not None else ""))
        rows.append(row)
    return _table(["", *(TITLES[proxy] for proxy in proxies)], rows)


def _goals(verdicts: list[Verdict]) -> str:
    rows = [[verdict.goal.what, f"{verdict.goal.limit:g}",
             "not measured" if verdict.value is None else f"{verdict.value:.2f}", _quartiles(verdict.spread),
             "yes" if verdict.passed else "**no**"] for verdict in verdicts]
    return _table(["Goal", "at most", "reached", "quartiles", "passed"], rows)


def _case(results: Results, proxies: list[str], case: str) -> str:
    columns: list[tuple[str, Callable[[str], str]]] = [
        ("CPU us/request", lambda p: _with_range(results, case, p, "cpu_us")),
        ("ratio", lambda p: _number(results.ratio(case, p, "cpu_us"), 2)),
        ("quartiles", lambda p: _quartiles(results.ratio_quartiles(case, p, "cpu_us"))),
        ("user + system", lambda p: f"{_number(results.median(case, p, 'user_us'))} + "
                                    f"{_number(results.median(case, p, 'system_us'))}"),
        ("requests/s", lambda p: _number(results.median(case, p, "requests_per_second"), 0)),
        ("core busy", lambda p: _number(100 * (results.median(case, p, "cpu_share") or 0), 0) + " %"),
        ("p50 us", lambda p: _with_range(results, case, p, "p50_us", 0)),
        ("p99 us", lambda p: _with_range(results, case, p, "p99_us", 0)),
        ("peak RSS MiB", lambda p: _number((results.median(case, p, "peak_rss_kib") or 0) / 1024)),
        ("switches/request, voluntary + involuntary",
         lambda p: f"{_number(results.median(case, p, 'voluntary_switches'), 3)} + "
                   f"{_number(results.median(case, p, 'involuntary_switches'), 3)}"),
        ("upstream connections opened", lambda p: f"{results.total(case, p, 'upstream_connections'):.0f}"),
        ("errors", lambda p: f"{results.total(case, p, 'errors'):.0f}"),
    ]
    rows = [[TITLES[proxy], *(show(proxy) for _, show in columns)] for proxy in proxies
            if results.values(case, proxy, "cpu_us")]
    return _table(["", *(name for name, _ in columns)], rows)


def _idle(results: Results, proxies: list[str], case: IdleCase) -> str:
    rows = []
    for proxy in proxies:
        if not results.values(case.name, proxy, "kib_per_connection"):
            continue
        without, with_them = (results.median(case.name, proxy, metric)
                              for metric in ("pss_without_kib", "pss_with_kib"))
        rows.append([TITLES[proxy], _with_range(results, case.name, proxy, "kib_per_connection", 2),
                     _number(results.ratio(case.name, proxy, "kib_per_connection"), 2),
                     _number(without and without / 1024), _number(with_them and with_them / 1024),
                     _number(results.median(case.name, proxy, "connections"), 0)])
    return _table(["", "KiB of PSS per connection", "ratio", "PSS with none, MiB", "PSS with all, MiB", "connections"],
                  rows)


def _shards(results: Results) -> str:
    rows = []
    for case, proxy in ((ONE_SHARD, "postern"), (TWO_SHARDS, POSTERN_TWO_SHARDS)):
        rows.append([case.title, f"{case.connections} connections, {case.rate:,}/s",
                     _with_range(results, case.name, proxy, "cpu_us"),
                     _with_range(results, case.name, proxy, "p50_us", 0),
                     _with_range(results, case.name, proxy, "p99_us", 0)])
    return _table(["", "load", "CPU us/request", "p50 us", "p99 us"], rows)

"""What is shown while a run goes on, and at its end: progress on standard error, tables on standard output. Colour
only on a terminal."""

import os
import sys
import time
from typing import TextIO

from .cases import IDLE_CASES, ONE_SHARD, POSTERN_TWO_SHARDS, TWO_SHARDS, Case
from .goals import Verdict
from .machine import TITLES
from .results import DISTURBED, Cell, Results

GREEN, RED, DIM, BOLD = "32", "31", "2", "1"


class Progress:
    """One line per cell, with the time that is left by the pace so far."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = time.monotonic()

    def report(self, cell: Cell) -> None:
        """Shows the cell just measured."""
        self._done += 1
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self._total - self._done)
        note = f"  other programs took {cell.metrics['others_share']:.0%} of a core" if cell.disturbed else ""
        if cell.invalid:
            note += paint("  INVALID: " + "; ".join(cell.invalid), RED, sys.stderr)
        print(f"[{self._done:>{len(str(self._total))}}/{self._total}] {cell.case:<9} {cell.number:>3}  "
              f"{cell.proxy:<10} {_gist(cell)}  {paint(f'{left / 60:4.1f} min left', DIM, sys.stderr)}{note}",
              file=sys.stderr, flush=True)


def _gist(cell: Cell) -> str:
    m = cell.metrics
    if "cpu_us" not in m:
        gist = f"{m['kib_per_connection']:8.2f} KiB per connection" if m else "     not measured"
    else:
        gist = f"{m['cpu_us']:8.2f} us CPU {m['requests_per_second']:8.0f}/s"
        if "p50_us" in m:
            gist += f"  p50 {m['p50_us']:6.0f} us  p99 {m['p99_us']:6.0f} us"
    return f"{gist:<56}"


def paint(text: str, colour: str, stream: TextIO = sys.stdout) -> str:
    """`text` in `colour`, if `stream` is a terminal and NO_COLOR is not set."""
    return f"\x1b[{colour}m{text}\x1b[0m" if stream.isatty() and "NO_COLOR" not in os.environ else text


def print_results(results: Results, proxies: list[str], cases: list[Case]) -> None:
    """CPU per request, one line per case, the best proxy in green."""
    print("\n" + paint("CPU microseconds per request", BOLD) + " (medians; in brackets: Postern to the best of "
          "the references)\n")
    print(paint(f"{'':<28}" + "".join(f"{TITLES[proxy]:>10}" for proxy in proxies), DIM))
    rows = [(case.name, case.title, "cpu_us") for case in cases if case.compared]
    rows += [(case.name, f"{case.title}, KiB", "kib_per_connection") for case in IDLE_CASES]
    for name, title, metric in rows:
        medians = [results.median(name, proxy, metric) for proxy in proxies]
        known = [value for value in medians if value is not None]
        if not known:
            continue
        line = f"{title:<28}"
        for value in medians:
            text = f"{value:>10.2f}" if value is not None else f"{'-':>10}"
            line += paint(text, GREEN) if value == min(known) else text
        ratio = results.ratio(name, "postern", metric)
        print(line + (f"   ({ratio:.2f})" if ratio is not None else ""))
    one = results.median(ONE_SHARD.name, "postern", "cpu_us")
    two = results.median(TWO_SHARDS.name, POSTERN_TWO_SHARDS, "cpu_us")
    if one and two:
        print(f"{'Postern, 1 and 2 shards':<28}{one:>10.2f}{two:>10.2f}   ({two / one:.2f})")
    if disturbed := results.disturbed():
        print(f"\nOther programs took more than {DISTURBED:.0%} of a core in {len(disturbed)} cells: the figures are "
              "less certain than they look.")
    print()


def print_verdicts(verdicts: list[Verdict]) -> None:
    """Pass or miss, one line per goal."""
    for verdict in verdicts:
        word = paint("pass", GREEN) if verdict.passed else paint("MISS", RED)
        value = "not measured" if verdict.value is None else f"{verdict.value:.2f}"
        spread = f"{verdict.spread[0]:.2f}-{verdict.spread[1]:.2f}" if verdict.spread else ""
        print(f"{word}  {verdict.goal.what:<40} {value:>12}  {spread:<10} (goal: at most {verdict.goal.limit:g})")
    print()

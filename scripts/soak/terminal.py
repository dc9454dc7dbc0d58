"""What is shown while a run goes on, and at its end: progress on standard error, the summary on standard output. Colour
only on a terminal."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from .backends import Backends
from .judge import Check, Judge
from .memory import Sample, Trend

GREEN, RED, YELLOW, DIM, BOLD = "32", "31", "33", "2", "1"


def paint(text: str, colour: str, stream: TextIO = sys.stdout) -> str:
    """`text` in `colour`, if `stream` is a terminal and NO_COLOR is not set."""
    return f"\x1b[{colour}m{text}\x1b[0m" if stream.isatty() and "NO_COLOR" not in os.environ else text


class Progress:
    """A line every few seconds."""

    def __init__(self, judge: Judge, origins: Backends, seconds: float) -> None:
        self._judge = judge
        self._origins = origins
        self._seconds = seconds
        self._started = self._shown = time.monotonic()
        self._complete = 0

    def show(self, sample: Sample) -> None:
        """Shows how things are."""
        now, tally = time.monotonic(), self._judge.tally
        rate = (tally["complete"] - self._complete) / (now - self._shown)
        self._shown, self._complete = now, tally["complete"]
        minutes, seconds = divmod(int(now - self._started), 60)
        violations = sum(self._judge.violations.values())
        found = f"{violations} violations"
        print(f"[{minutes:2}:{seconds:02} of {self._seconds / 60:g} min] "
              f"{tally['complete']:>8,} complete {rate:5.0f}/s  "
              f"{self._judge.explained:>5,} explained  {self._origins.kills:>4} kills  "
              f"RSS {sample.rss_kib / 1024:6.1f} MiB  {paint(found, RED if violations else DIM, sys.stderr)}",
              file=sys.stderr, flush=True)


def summarize(judge: Judge, origins: Backends, trends: list[Trend], seed: str, work: Path) -> None:
    """What was done, and one line per check."""
    print("\n" + paint("What happened", BOLD))
    print(f"{origins.kills:>12,}  kills of a backend")
    for what, count in sorted(judge.tally.items()):
        print(f"{count:>12,}  {what}")
    print(f"{judge.bytes / 2**20:>12,.1f}  MiB of content in complete responses")
    if judge.drain_seconds is not None:
        print(f"{judge.drain_seconds:>12.1f}  seconds of draining")
    for trend in trends:
        print(f"{trend.after_kib / 1024:>12.1f}  MiB of {trend.what} at the end, after {trend.before_kib / 1024:.1f}")
    print("\n" + paint("What was checked", BOLD))
    for check in Check:
        violations = judge.violations[check]
        if violations:
            print(f"{paint('FAIL', RED)}  {check.value}: {violations} violations")
        elif check is Check.MEMORY and not trends:
            print(f"{paint('none', YELLOW)}  {check.value}: the run was too short to tell")
        else:
            print(f"{paint('pass', GREEN)}  {check.value}")
    if judge.violations:
        print("\n" + paint(f"Violations, with seed {seed}", BOLD) + f" (all of them in {work / 'violations.log'})")
        for violation in judge.first_violations:
            print(f"  {violation}")
    print()

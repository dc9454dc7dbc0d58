"""The command line: prepares, measures round by round, writes the reports, and judges."""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from . import idle, machine, plot, prepare, report, terminal
from .cases import ALL_CASES, POSTERN_TWO_SHARDS, Case
from .goals import judge
from .measure import measure
from .processes import Origin, Server, start_proxy
from .results import IDLE, Results
from .settings import HEADROOM, LOAD_CPU, OUTPUT, POSTERN, raise_descriptor_limit

SHARDS = "shards"
"""The name under which the command line knows the two cases of Postern beside itself."""

GOAL_MISSED = 1
RUN_INVALID = 2

T = TypeVar("T")


def parse_arguments() -> argparse.Namespace:
    """The arguments, with the two lists checked."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run.sh", description="Compares Postern with other proxies.")
    names = [*dict.fromkeys(_command_line_name(case) for case in ALL_CASES), IDLE]
    parser.add_argument("--proxies", type=_one_of(list(machine.TITLES)), default=list(machine.TITLES), metavar="LIST",
                        help="comma separated; default: " + ",".join(machine.TITLES))
    parser.add_argument("--cases", type=_one_of(names), default=names, metavar="LIST",
                        help="comma separated; default: " + ",".join(names))
    parser.add_argument("--rounds", type=_at_least_one, default=5, help="default: 5")
    parser.add_argument("--seconds", type=_at_least_one, default=3, help="length of a measured interval; default: 3")
    parser.add_argument("--warm-up", type=_at_least_one, default=1, help="seconds before each interval; default: 1")
    parser.add_argument("--idle-connections", type=_at_least_one, default=10_000, help="default: 10000")
    parser.add_argument("--idle-rounds", type=_at_least_one, default=3, help="at most --rounds; default: 3")
    parser.add_argument("--binary", type=_program, default=POSTERN, metavar="FILE",
                        help="the Postern to measure; default: a release build of this tree")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIRECTORY",
                        help="where the report, the plot and the raw figures go; default: target/bench")
    parser.add_argument("--check", action="store_true",
                        help="compare Postern with its goals; exit with 1 when one is missed")
    return parser.parse_args()


def _command_line_name(case: Case) -> str:
    return SHARDS if case.only else case.name


def _one_of(known: list[str]):
    def parse(text: str) -> list[str]:
        wanted = text.split(",")
        if unknown := [name for name in wanted if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return [name for name in known if name in wanted]

    return parse


def _program(text: str) -> Path:
    if not os.access(text, os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: not a program")
    return Path(text).resolve()


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run(arguments: argparse.Namespace) -> Results:
    """Measures every cell. All proxies stay up the whole time; one at a time is loaded."""
    descriptors = raise_descriptor_limit()
    if arguments.idle_connections > descriptors - 2 * HEADROOM:
        raise RuntimeError(f"{arguments.idle_connections} idle connections need more than the {descriptors} files that "
                           "may be open here: raise the limit (ulimit -Hn) or lower --idle-connections")
    cases = [case for case in ALL_CASES if _command_line_name(case) in arguments.cases]
    names = list(arguments.proxies)
    if "postern" in names and SHARDS in arguments.cases:
        names.append(POSTERN_TWO_SHARDS)
    idle_rounds = min(arguments.idle_rounds, arguments.rounds) if IDLE in arguments.cases else 0
    cells = sum(case.runs_on(name) for case in cases for name in names) * arguments.rounds
    progress = terminal.Progress(cells + idle_rounds * len(arguments.proxies))
    results = Results()
    with ExitStack() as running:
        origin = running.enter_context(Origin())

        def start(name: str) -> Server:
            return start_proxy(name, origin.port, descriptors, arguments.binary)

        fleet = [running.enter_context(start(name)) for name in names]
        for number in range(1, arguments.rounds + 1):
            for position, case in enumerate(cases):
                for proxy in _rotated(fleet, number + position):
                    if case.runs_on(proxy.name):
                        cell = measure(case, proxy, origin, number, arguments.seconds, arguments.warm_up)
                        results.cells.append(cell)
                        progress.report(cell)
            if number <= idle_rounds:
                for name in _rotated(arguments.proxies, number):
                    cell = idle.measure_idle(name, start, origin, number, arguments.idle_connections)
                    results.cells.append(cell)
                    progress.report(cell)
    return results


def _rotated(items: list[T], by: int) -> list[T]:
    """So that no proxy always follows the same other, or always comes first."""
    start = by % len(items)
    return items[start:] + items[:start]


def main() -> int:
    """Returns the exit code."""
    arguments = parse_arguments()
    try:
        prepare.prepare(arguments.proxies, arguments.binary)
        os.sched_setaffinity(0, {LOAD_CPU})
        # Unwinds, and so ends the servers, as an interrupt from the keyboard does.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        results = run(arguments)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return RUN_INVALID
    about = machine.describe(arguments.proxies, arguments.binary)
    about["Load"] = (f"{arguments.rounds} interleaved rounds of {arguments.seconds} s each, after a warm-up of "
                     f"{arguments.warm_up} s; {arguments.idle_connections:,} idle connections")
    cases = [case for case in ALL_CASES if _command_line_name(case) in arguments.cases]
    verdicts = judge(results) if "postern" in arguments.proxies else []
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    report.write_raw(output / "raw.json", about, results)
    report.write_markdown(output / "report.md", about, results, arguments.proxies, cases, verdicts)
    plot.write_svg(output / "report.svg", about, results, arguments.proxies, cases)
    terminal.print_results(results, arguments.proxies, cases)
    if arguments.check:
        terminal.print_verdicts(judge(results))
    print("\n".join(str(output / name) for name in ("report.md", "report.svg", "raw.json")))
    if results.invalid():
        print("bench: the run is invalid: some proxy did not forward or did not reuse connections", file=sys.stderr)
        return RUN_INVALID
    if arguments.check and not all(verdict.passed for verdict in judge(results)):
        return GOAL_MISSED
    return 0


if __name__ == "__main__":
    sys.exit(main())

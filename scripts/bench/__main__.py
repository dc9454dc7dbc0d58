"""The command line: prepares, measures round by round, writes the reports, and judges."""

import argparse
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import idle, machine, plot, prepare, report, terminal
from .cases import ALL_CASES, IDLE_CASES, OFTEN, POSTERN_TWO_SHARDS, Case, IdleCase, Setup, in_a_round
from .goals import judge
from .measure import measure
from .processes import Origin, Refused, Server, start_proxy
from .results import Results
from .settings import HEADROOM, LOAD_CPU, OUTPUT, POSTERN, raise_descriptor_limit

SHARDS = "shards"
"""The name under which the command line knows the two cases of Postern beside itself."""

GOAL_MISSED = 1
RUN_INVALID = 2

T = TypeVar("T")


def parse_arguments() -> argparse.Namespace:
    """The arguments, with the two lists checked."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run.sh", description="Compares Postern with other proxies.")
    names = [*dict.fromkeys(_command_line_name(case) for case in (*ALL_CASES, *IDLE_CASES))]
    parser.add_argument("--proxies", type=_one_of(list(machine.TITLES)), default=list(machine.TITLES), metavar="LIST",
                        help="comma separated; default: " + ",".join(machine.TITLES))
    parser.add_argument("--cases", type=_one_of(names), default=names, metavar="LIST",
                        help="comma separated; default: " + ",".join(names))
    parser.add_argument("--rounds", type=_at_least_one, default=6, help="default: 6")
    parser.add_argument("--seconds", type=_seconds, default=1, help="length of a measured interval; default: 1")
    parser.add_argument("--warm-up", type=_seconds, default=0.3, help="seconds before each interval; default: 0.3")
    parser.add_argument("--idle-connections", type=_at_least_one, default=10_000,
                        help="default: 10000; with TLS 5000 at most")
    parser.add_argument("--idle-rounds", type=_at_least_one, default=2, help="at most --rounds; default: 2")
    parser.add_argument("--binary", type=_program, default=POSTERN, metavar="FILE",
                        help="the Postern to measure; default: a release build of this tree")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIRECTORY",
                        help="where the report, the plot and the raw figures go; default: target/bench")
    parser.add_argument("--check", action="store_true",
                        help="compare Postern with its goals; exit with 1 when one is missed")
    return parser.parse_args()


def _command_line_name(case: Case | IdleCase) -> str:
    return case.name if isinstance(case, IdleCase) or case.compared else SHARDS


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


def _seconds(text: str) -> float:
    if not 0.1 <= (seconds := float(text)) <= 600:
        raise argparse.ArgumentTypeError("must be 0.1 to 600")
    return seconds


def run(arguments: argparse.Namespace) -> Results:
    """Measures every cell. All proxies stay up the whole time; one at a time is loaded."""
    descriptors = raise_descriptor_limit()
    cases = [case for case in ALL_CASES if _command_line_name(case) in arguments.cases]
    idle_cases = [case for case in IDLE_CASES if case.name in arguments.cases]
    if idle_cases and arguments.idle_connections > descriptors - 2 * HEADROOM:
        raise RuntimeError(f"{arguments.idle_connections} idle connections need more than the {descriptors} files that "
                           "may be open here: raise the limit (ulimit -Hn) or lower --idle-connections")
    results = Results()
    with ExitStack() as running:
        origin = running.enter_context(Origin())

        def start(name: str, setup: Setup) -> Server:
            return start_proxy(name, setup, origin, descriptors, arguments.binary)

        fleets = _start_fleets(cases, arguments.proxies, start, running, results)
        schedule = in_a_round(cases)
        idle_rounds = min(arguments.idle_rounds, arguments.rounds)
        progress = terminal.Progress(sum(len(fleets[case.name]) for case in schedule) * arguments.rounds
                                     + sum(len(_proxies_of(case, arguments.proxies)) for case in idle_cases)
                                     * idle_rounds)
        measured: Counter[str] = Counter()
        for number in range(1, arguments.rounds + 1):
            for case in schedule:
                measured[case.name] += 1
                for proxy in _rotated(fleets[case.name], measured[case.name]):
                    cell = measure(case, proxy, origin, measured[case.name], arguments.seconds, arguments.warm_up)
                    results.cells.append(cell)
                    progress.report(cell)
            for idle_case in idle_cases if number <= idle_rounds else []:
                for name in _rotated(_proxies_of(idle_case, arguments.proxies), number):
                    try:
                        cell = idle.measure_idle(idle_case, partial(start, name, idle_case.setup), origin, number,
                                                 min(idle_case.connections, arguments.idle_connections))
                    except Refused as refusal:
                        _skip(results, idle_case, name, refusal)
                        continue
                    results.cells.append(cell)
                    progress.report(cell)
    return results


def _proxies_of(case: Case | IdleCase, chosen: list[str]) -> list[str]:
    """Who takes part in `case`, of those that were `chosen`. Who wants Postern gets its second one where that runs."""
    return [name for name in case.proxies
            if name in chosen or name == POSTERN_TWO_SHARDS and "postern" in chosen]


def _start_fleets(cases: list[Case], chosen: list[str], start: Callable[[str, Setup], Server], running: ExitStack,
                  results: Results) -> dict[str, list[Server]]:
    """The proxies of each case, by its name. Cases with the same setup share them."""
    servers: dict[tuple[str, Setup], Server | Refused] = {}
    fleets: dict[str, list[Server]] = {}
    for case in cases:
        fleets[case.name] = []
        for name in _proxies_of(case, chosen):
            wanted = name, case.setup
            if wanted not in servers:
                try:
                    servers[wanted] = running.enter_context(start(*wanted))
                except Refused as refusal:
                    servers[wanted] = refusal
            server = servers[wanted]
            if isinstance(server, Refused):
                _skip(results, case, name, server)
            else:
                fleets[case.name].append(server)
    return fleets


def _skip(results: Results, case: Case | IdleCase, name: str, refusal: Refused) -> None:
    results.skipped[case.name, name] = str(refusal)
    print(f"skipping {case.name} on {name}: {refusal}", file=sys.stderr, flush=True)


def _rotated(items: list[T], by: int) -> list[T]:
    """So that no proxy always comes first."""
    start = by % max(len(items), 1)
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
    about["Load"] = (f"{arguments.rounds} interleaved rounds, c64 and c1 {OFTEN} times in each; {arguments.seconds:g} s"
                     f" for each cell, after a warm-up of {arguments.warm_up:g} s")
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

"""The command line: starts everything, lets load and silence take turns, kills backends, drains, and says what it
found."""

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from . import backends, memory, terminal
from .backends import Backends
from .clients import Load
from .gateway import Gateway, complaints
from .judge import Check, Judge
from .memory import Sample
from .wire import Ended

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WORK = REPOSITORY / "target" / "soak"
RELEASE = REPOSITORY / "target" / "release" / "postern"

FIRST_PORT = 19100
"""Below the range from which the kernel takes the ports of outgoing connections (32768 and up). Otherwise one of those
could get the port of a backend that is away, or a connection to it could connect to itself."""

LOAD_SECONDS = 20
"""Load between two silences, at most; a short run has three silences."""
LAST_LOAD_SECONDS = 3
SETTLE_SECONDS = 0.5
BUSY_SECONDS = 30
"""The longest that clients may need for what they have begun."""
QUIET_SECONDS = 10
"""How long the gateway may take to let go of everything: above its longest wait for a client that has gone away."""
PROGRESS_SECONDS = 5

VIOLATED = 1
INVALID = 2


def parse_arguments() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak.sh", description="Runs Postern under load, between clients and backends that go away."
    )
    parser.add_argument("--minutes", type=_positive, default=10.0, help="length of the run; default: 10")
    parser.add_argument("--binary", type=Path, metavar="PATH",
                        help="what to run; default: a release build of this tree")
    parser.add_argument("--seed", default=f"{random.SystemRandom().getrandbits(32):08x}",
                        help="what each client does and which backend is killed when; default: another each time")
    return parser.parse_args()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be positive")
    return value


def _free_ports() -> Iterator[int]:
    for port in count(FIRST_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


class Run:
    """One run."""

    def __init__(self, arguments: argparse.Namespace, judge: Judge, origins: Backends, gateway: Gateway) -> None:
        self._seconds = arguments.minutes * 60
        self._rng = random.Random(arguments.seed)
        self._judge = judge
        self._origins = origins
        self._gateway = gateway
        self._load = Load(gateway.address, arguments.seed, judge)
        self._baseline = 0
        self.samples: list[Sample] = []

    async def go(self) -> None:
        """The whole run, to the end of the gateway."""
        await self._origins.start()
        await self._gateway.wait_until_ready()
        await asyncio.sleep(SETTLE_SECONDS)
        self._baseline = self._gateway.descriptors()
        async with asyncio.TaskGroup() as group:
            for client in self._load.clients():
                group.create_task(client)
            watching = group.create_task(self._watch())
            await self._take_turns()
            await self._drain()
            self._load.end()
            watching.cancel()

    async def _take_turns(self) -> None:
        rounds = max(3, round(self._seconds / LOAD_SECONDS))
        for _ in range(rounds):
            end = time.monotonic() + self._seconds / rounds
            self._load.resume()
            while self._gateway.is_running and (left := end - time.monotonic()) > 0:
                up = self._rng.uniform(*backends.UP_SECONDS)
                await asyncio.sleep(min(up, left))
                if up < left:
                    await self._origins.kill_one(self._rng)
            self._load.pause()
            await self._silence()
            if not self._gateway.is_running:
                return

    async def _silence(self) -> None:
        """Nobody asks for anything: then nothing may be left."""
        end = time.monotonic() + BUSY_SECONDS
        while self._load.active and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if self._load.active:
            self._judge.violate(Check.RESPONSES, f"{self._load.active} clients wait for something")
        end = time.monotonic() + QUIET_SECONDS
        while self._gateway.is_running:
            try:
                found = complaints(await self._gateway.metrics(), self._gateway.descriptors(), self._baseline)
            except (OSError, Ended) as error:
                found = [f"no metrics: {error!r}"]
            if not found:
                return
            if time.monotonic() >= end:
                for complaint in found:
                    self._judge.violate(Check.REST, complaint)
                return
            await asyncio.sleep(0.1)

    async def _drain(self) -> None:
        """SIGTERM while all clients are at work and all backends are there."""
        if not self._gateway.is_running:
            # From here on, nobody wonders that connections are refused.
            self._judge.drain_began = time.monotonic()
            self._judge.violate(Check.DRAIN, f"the gateway ended on its own, with {await self._gateway.wait()}")
            return
        self._load.resume()
        await asyncio.sleep(LAST_LOAD_SECONDS)
        self._judge.drain_began = time.monotonic()
        self._gateway.terminate()
        code = await self._gateway.wait()
        if code != 0:
            what = "the gateway is still there" if code is None else f"the gateway ended with {code}"
            self._judge.violate(Check.DRAIN, f"{what} after {time.monotonic() - self._judge.drain_began:.1f} s")
        self._judge.drain_seconds = time.monotonic() - self._judge.drain_began

    async def _watch(self) -> None:
        """Samples memory each second of load, and shows progress."""
        progress = terminal.Progress(self._judge, self._origins, self._seconds)
        started = time.monotonic()
        for second in count(1):
            await asyncio.sleep(max(0.0, started + second - time.monotonic()))
            if self._load.is_on and self._judge.drain_began is None and self._gateway.is_running:
                self.samples.append(Sample(time.monotonic() - started, *self._gateway.memory_kib()))
            if second % PROGRESS_SECONDS == 0 and self.samples:
                progress.show(self.samples[-1])


def judge_the_end(judge: Judge, origins: Backends, gateway: Gateway, trends: list[memory.Trend]) -> None:
    """What can be said only when all is over."""
    origins.judge_what_was_told()
    for line in gateway.panics():
        judge.violate(Check.REST, line)
    for trend in trends:
        if trend.grows:
            judge.violate(Check.MEMORY, f"{trend.what} grew from {trend.before_kib:.0f} to {trend.after_kib:.0f} KiB")


def main() -> int:
    """Returns the exit code."""
    arguments = parse_arguments()
    # So that everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INVALID))
    binary = arguments.binary or RELEASE
    if arguments.binary is None:
        subprocess.run(["cargo", "build", "--release", "--bin", "postern"], cwd=REPOSITORY, check=True)
    if not os.access(binary, os.X_OK):
        print(f"soak: {binary} is no program", file=sys.stderr)
        return INVALID
    WORK.mkdir(parents=True, exist_ok=True)
    ports = _free_ports()
    origin_ports = [next(ports) for _ in range(backends.COUNT)]
    gateway_ports = (next(ports), next(ports))
    print(f"soak: {arguments.minutes:g} minutes, seed {arguments.seed}; files in {WORK}", file=sys.stderr)
    with (WORK / "violations.log").open("w") as log:
        judge = Judge(log)
        with Backends(origin_ports, WORK, judge) as origins, \
                Gateway(binary.resolve(), WORK, gateway_ports, origin_ports) as gateway:
            run = Run(arguments, judge, origins, gateway)
            try:
                asyncio.run(run.go())
            except KeyboardInterrupt:
                return INVALID
        trends = memory.trends(run.samples)
        judge_the_end(judge, origins, gateway, trends)
    terminal.summarize(judge, origins, trends, arguments.seed, WORK)
    return VIOLATED if judge.violations else 0


if __name__ == "__main__":
    sys.exit(main())

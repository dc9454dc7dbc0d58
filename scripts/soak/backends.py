"""The backends' processes: started, killed one at a time, and started again."""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

from .judge import Check, Judge
from .origin import POST, WRONG

COUNT = 3
SCRIPTS = Path(__file__).resolve().parent.parent

UP_SECONDS = (0.5, 4.0)
"""Between the return of one backend and the death of the next."""
DOWN_SECONDS = (0.05, 1.5)
START_SECONDS = 20


class Backends(AbstractContextManager):
    """Three backends. What they tell goes to a file at once, since they may not live to tell it later."""

    def __init__(self, ports: list[int], work: Path, judge: Judge) -> None:
        self._ports = ports
        self._judge = judge
        self._told = work / "origins.log"
        self._stderr = work / "origins.stderr"
        self._told.write_bytes(b"")
        self._stderr.write_bytes(b"")
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(ports)
        self._lives = [0] * len(ports)
        self.kills = 0

    def __exit__(self, *_exception: object) -> None:
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()

    async def start(self) -> None:
        """Starts all of them, and waits until they accept."""
        for index in range(len(self._ports)):
            await self._start(index)

    async def kill_one(self, rng: random.Random) -> None:
        """Kills one without a warning, and brings it back after a while."""
        index = rng.randrange(len(self._ports))
        process = self._processes[index]
        assert process is not None, "all of them have been started"
        outage = self._judge.killing(self._name(index))
        process.kill()
        process.wait()
        self.kills += 1
        await asyncio.sleep(rng.uniform(*DOWN_SECONDS))
        await self._start(index)
        outage.ended = time.monotonic()

    def judge_what_was_told(self) -> None:
        """At the end of the run: no upload came in twice, none was mistaken for a whole one, and no backend failed."""
        posts: Counter[str] = Counter()
        for line in self._told.read_text().splitlines():
            word, _, what = line.partition(" ")
            if word == POST:
                posts[what] += 1
            elif word == WRONG:
                self._judge.violate(Check.BACKENDS, what)
        for identity, count in posts.items():
            if count > 1:
                self._judge.violate(Check.BACKENDS, f"POST {identity} reached backends {count} times")
        if failures := self._stderr.read_text():
            self._judge.violate(Check.BACKENDS, f"a backend failed, which no request may make it do: {failures[:200]}")

    def _name(self, index: int) -> str:
        return f"b{index}.{self._lives[index]}"

    async def _start(self, index: int) -> None:
        self._lives[index] += 1
        command = [sys.executable, "-m", "soak.origin", self._name(index), str(self._ports[index])]
        with self._told.open("ab") as told, self._stderr.open("ab") as stderr:
            self._processes[index] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=told, stderr=stderr, cwd=SCRIPTS
            )
        async with asyncio.timeout(START_SECONDS):
            while not await _accepts(self._ports[index]):
                await asyncio.sleep(0.02)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True

"""The gateway's process: its configuration, its metrics, and what the kernel says about it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from .wire import Ended, Peer

SHARDS = 2
DRAIN_SECONDS = 20
START_SECONDS = 15
ANSWER_SECONDS = 5
"""For the admin listener to answer."""
EXIT_MARGIN_SECONDS = 5

Metrics = dict[str, int]
"""Values by the series' names with their labels."""


class Gateway(AbstractContextManager):
    """Postern with an upstream of these backends; the context ends it."""

    def __init__(self, binary: Path, work: Path, ports: tuple[int, int], backends: list[int]) -> None:
        """`ports` are those of the public and of the admin listener."""
        self.address = ("127.0.0.1", ports[0])
        self._admin = ("127.0.0.1", ports[1])
        config = {
            "shards": SHARDS,
            "drain_timeout": f"{DRAIN_SECONDS}s",
            "log": {"level": "info"},
            "access_log": {"path": "access.log"},
            "listeners": [
                {"name": "public", "address": f"127.0.0.1:{ports[0]}"},
                {"name": "admin", "address": f"127.0.0.1:{ports[1]}", "admin": True},
            ],
            "upstreams": {"app": {"endpoints": [f"http://127.0.0.1:{port}" for port in backends]}},
            "routes": [{"match": {"listener": "public"}, "upstream": "app"}],
        }
        file = work / "gateway.json"
        file.write_text(json.dumps(config, indent=2))
        (work / "access.log").write_bytes(b"")
        self._stderr = work / "gateway.stderr"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [binary, "run", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
            )

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def wait_until_ready(self) -> None:
        """Returns once every listener accepts."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                if not self.is_running:
                    raise RuntimeError(f"the gateway did not start: {self._stderr.read_text()}")
                try:
                    await self._get("/readyz")
                    return
                except (ConnectionError, Ended):
                    await asyncio.sleep(0.05)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def panics(self) -> list[str]:
        """Lines that it wrote about panics."""
        return [line for line in self._stderr.read_text().splitlines() if "panicked" in line]

    async def metrics(self) -> Metrics:
        """Every sample that is a whole number."""
        lines = (await self._get("/metrics")).splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def memory_kib(self) -> tuple[int, int]:
        """Resident and proportional set size."""
        proc = Path(f"/proc/{self._process.pid}")
        return _kib(proc / "status", "VmRSS"), _kib(proc / "smaps_rollup", "Pss")

    def terminate(self) -> None:
        """Asks it to drain."""
        self._process.send_signal(signal.SIGTERM)

    async def wait(self) -> int | None:
        """The exit code; `None` if the process is still there long after the drain's time-out."""
        end = asyncio.get_running_loop().time() + DRAIN_SECONDS + EXIT_MARGIN_SECONDS
        while self.is_running and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        return self._process.poll()

    async def _get(self, path: str) -> str:
        async with asyncio.timeout(ANSWER_SECONDS):
            with socket.socket() as sock:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, self._admin)
                peer = Peer(sock)
                await peer.send(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
                head = await peer.head()
                if head is None or head.start.split(" ")[1] != "200":
                    raise ConnectionError(f"{path}: {head}")
                return b"".join([piece async for piece in peer.content(head, otherwise_to_end=True)]).decode()


def _kib(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        field, _, value = line.partition(":")
        if field == name:
            return int(value.split()[0])
    raise RuntimeError(f"no {name} in {file}")


def complaints(metrics: Metrics, descriptors: int, baseline: int) -> list[str]:
    """What is left behind when nobody asks for anything. `baseline`: the descriptors there were before all load."""
    idle = metrics['postern_upstream_connections_idle{upstream="app"}']
    expected = {
        'postern_requests_open{listener="public"}': 0,
        'postern_connections_open{listener="public"}': 0,
        'postern_upstream_queued{upstream="app"}': 0,
        'postern_upstream_connections_open{upstream="app"}': idle,
        "postern_task_panics_total": 0,
        "postern_accept_errors_total": 0,
    }
    found = [f"{name} is {metrics[name]} and not {value}" for name, value in expected.items() if metrics[name] != value]
    if descriptors != baseline + idle:
        found.append(f"{descriptors} open descriptors and not {baseline} and {idle} idle upstream connections")
    return found

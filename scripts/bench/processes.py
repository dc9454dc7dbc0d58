"""The processes of a run: started, pinned, waited for until they answer, stopped."""

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from . import configs, prepare
from .cases import LARGE, POSTERN_TWO_SHARDS, SMALL
from .settings import FIRST_PORT, LARGE_BODY, LOAD_CPU, PROXY_CPU, SMALL_BODY, WORK, pinned

START_SECONDS = 15
STOP_SECONDS = 10


class Server(AbstractContextManager):
    """A process that serves HTTP on `port`; the context ends it."""

    def __init__(self, name: str, port: int, cpus: list[int], command: list[str]) -> None:
        self.name = name
        self.port = port
        self._log = (WORK / f"{name}-{port}.out").open("wb")
        self._process = subprocess.Popen(
            pinned(cpus) + command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The root of its process tree: taskset has become the command."""
        return self._process.pid

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks it to end, then makes it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        reason = "no answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                reason = f"it exited with {self._process.returncode}"
                break
            try:
                for path, length in ((SMALL, len(SMALL_BODY)), (LARGE, LARGE_BODY)):
                    if len(get(self.port, path)) != length:
                        raise OSError(f"{path} is not the origin's response")
                return
            except (OSError, http.client.HTTPException) as error:
                reason = str(error)
                time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start: {reason}; see {self._log.name}")


def get(port: int, path: str) -> bytes:
    """One request on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"{path} answers {response.status}")
        return body
    finally:
        connection.close()


@dataclass(frozen=True)
class Arrivals:
    """What the origin has seen since it started."""

    connections: int
    requests: int


class Origin(Server):
    """The one server behind all proxies."""

    def __init__(self) -> None:
        port = next(_ports)
        self._readings = 0
        www = WORK / "www"
        www.mkdir(exist_ok=True)
        (www / LARGE.strip("/")).write_bytes(b"x" * LARGE_BODY)
        config = WORK / "origin.conf"
        config.write_text(configs.origin(port))
        super().__init__("origin", port, [LOAD_CPU], ["nginx", "-c", str(config), "-e", "stderr"])

    def arrivals(self) -> Arrivals:
        """Reads the counters, leaving out the connection and request that each reading is itself."""
        # "Active connections: 1 \nserver accepts handled requests\n 5 5 9 \nReading: 0 ..."
        accepts, _handled, requests = map(int, get(self.port, "/status").split(b"\n")[2].split())
        self._readings += 1
        return Arrivals(accepts - self._readings, requests - self._readings)


def start_proxy(name: str, origin_port: int, descriptors: int, binary: Path) -> Server:
    """Starts the proxy that a command line or a case calls `name`, on a port of its own."""
    port = next(_ports)
    config = WORK / f"{name}-{port}.conf"
    cpus = [PROXY_CPU]
    match name:
        case "nginx":
            text = configs.nginx(port, origin_port, descriptors)
            command = ["nginx", "-c", str(config), "-e", "stderr"]
        case "haproxy":
            text = configs.haproxy(port, origin_port, descriptors)
            command = ["haproxy", "-db", "-f", str(config)]
        case "envoy":
            config = config.with_suffix(".json")
            text = configs.envoy(port, origin_port)
            command = [str(prepare.ENVOY), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
                       "-c", str(config)]
        case _:
            if name == POSTERN_TWO_SHARDS:
                cpus = [PROXY_CPU, LOAD_CPU]
            config = config.with_suffix(".json")
            text = configs.postern(port, next(_ports), origin_port, cpus, descriptors)
            command = [str(binary), "run", str(config)]
    config.write_text(text)
    return Server(name, port, cpus, command)


def _free_ports() -> Iterator[int]:
    for port in count(FIRST_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


_ports = _free_ports()

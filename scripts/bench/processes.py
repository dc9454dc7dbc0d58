"""The processes of a run: started, pinned, waited for until they answer, stopped."""

import http.client
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from pathlib import Path

from . import certificates, configs, load, prepare
from .cases import H2_BOTH, LARGE, PLAIN, POSTERN_TWO_SHARDS, SMALL, UNARY, Protocol, Setup
from .settings import (FIRST_PORT, GRPC_MESSAGE, H1ORIGIN, H2ORIGIN, LARGE_BODY, LOAD_CPU, MESSAGE, PROXY_CPU,
                       SMALL_BODY, WORK, pinned)

START_SECONDS = 15
STOP_SECONDS = 10

CONFIGURATION_WRONG = 2
"""With this `postern check` exits when it has complaints."""


class Refused(Exception):
    """Postern does not know what a setup asks of it. Says where in the configuration."""


class Server(AbstractContextManager):
    """A process that serves HTTP on `port`, as `setup` says; the context ends it."""

    def __init__(self, name: str, setup: Setup, port: int, cpus: list[int], command: list[str]) -> None:
        self.name = name
        self.setup = setup
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
                self._check_answers()
                return
            except (OSError, http.client.HTTPException) as error:
                reason = str(error)
                time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start ({self.setup}): {reason}; see {self._log.name}")

    def _check_answers(self) -> None:
        """What it answers with has to be what the origin has."""
        if self.setup.front is Protocol.H2C:
            _check_http2(self.port, SMALL, SMALL_BODY.encode())
            if self.setup.back is Protocol.H2C:
                _check_http2(self.port, UNARY, GRPC_MESSAGE)
            return
        for path, length in ((SMALL, len(SMALL_BODY)), (LARGE, LARGE_BODY)):
            if len(get(self.port, path, self.setup.front is Protocol.TLS)) != length:
                raise OSError(f"{path} is not the origin's response")


def get(port: int, path: str, secure: bool = False) -> bytes:
    """One request on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if secure:
        connection.sock = client_of_tls(socket.create_connection(("127.0.0.1", port), timeout=5))
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"{path} answers {response.status}")
        return body
    finally:
        connection.close()


def client_of_tls(connected: socket.socket) -> ssl.SSLSocket:
    """The handshake with a proxy, whose certificate has to be the one that was made for it."""
    return _tls_context().wrap_socket(connected, server_hostname=certificates.SITE_NAME)


@cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.AUTHORITY)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _check_http2(port: int, path: str, expected: bytes) -> None:
    """One request by nghttp, which prints fields and trailers among what was sent and received."""
    call = [f"--header={header}" for header in load.GRPC_HEADERS] + [f"--data={MESSAGE}"] if path == UNARY else []
    done = subprocess.run(["nghttp", "--verbose", *call, f"http://127.0.0.1:{port}{path}"],
                          capture_output=True, timeout=10, check=False)
    # The bracket ends what only stands before fields that were received.
    wanted = [b") :status: 200", expected]
    if call:
        wanted += [b") content-type: application/grpc", b") grpc-status: 0"]
    if missing := [words for words in wanted if words not in done.stdout]:
        raise OSError(f"{path} over HTTP/2: no {missing[0]!r} in the response")


@dataclass(frozen=True)
class Arrivals:
    """What the origin has seen since it started."""

    connections: int
    requests: int


class Origin(AbstractContextManager):
    """The one origin behind all proxies: h1origin.c for HTTP/1.1, nginx for that through TLS, h2origin.c for HTTP/2."""

    def __init__(self) -> None:
        self._ports = {protocol: next(_free) for protocol in Protocol}
        self._readings = 0
        self._counters = [WORK / "h1origin.counters", WORK / "h2origin.counters"]
        www = WORK / "www"
        www.mkdir(exist_ok=True)
        (www / LARGE.strip("/")).write_bytes(b"x" * LARGE_BODY)
        config = WORK / "origin.conf"
        port, tls_port, h2_port = (self._ports[protocol] for protocol in (Protocol.HTTP, Protocol.TLS, Protocol.H2C))
        self._status_port = next(_free)
        config.write_text(configs.origin(self._status_port, tls_port))
        commands = (
            ("h1origin", PLAIN, port, [str(H1ORIGIN), str(port), str(self._counters[0]), str(LARGE_BODY)]),
            ("nginx-origin", PLAIN, self._status_port, ["nginx", "-c", str(config), "-e", "stderr"]),
            ("h2origin", H2_BOTH, h2_port, [str(H2ORIGIN), str(h2_port), str(self._counters[1])]),
        )
        with ExitStack() as started:
            self._servers = [started.enter_context(Server(name, setup, port, [LOAD_CPU], command))
                             for name, setup, port, command in commands]
            self._running = started.pop_all()

    def __exit__(self, *_exception: object) -> None:
        self._running.close()

    def port(self, setup: Setup) -> int:
        """Where it speaks what `setup` has behind the proxy."""
        return self._ports[setup.back]

    @property
    def pids(self) -> list[int]:
        """The roots of its process trees."""
        return [server.pid for server in self._servers]

    def arrivals(self) -> Arrivals:
        """Reads the counters, leaving out the connection and request that each reading is itself."""
        # "Active connections: 1 \nserver accepts handled requests\n 5 5 9 \nReading: 0 ..."
        status = get(self._status_port, "/status")
        accepts, _handled, requests = map(int, status.split(b"\n")[2].split())
        self._readings += 1
        counted = [(accepts - self._readings, requests - self._readings)]
        counted += [struct.unpack("=QQ", counters.read_bytes()) for counters in self._counters]
        return Arrivals(*map(sum, zip(*counted)))


def start_proxy(name: str, setup: Setup, origin: Origin, descriptors: int, binary: Path) -> Server:
    """Starts the proxy that a command line or a case calls `name`, on a port of its own. Raises `Refused`."""
    site = configs.Site(setup, next(_free), origin.port(setup), descriptors)
    config = WORK / f"{name}-{site.port}.conf"
    cpus = [PROXY_CPU]
    match name:
        case "nginx":
            text = configs.nginx(site)
            command = ["nginx", "-c", str(config), "-e", "stderr"]
        case "haproxy":
            text = configs.haproxy(site)
            command = ["haproxy", "-db", "-f", str(config)]
        case "h2o":
            text = configs.h2o(site)
            command = ["h2o", "-c", str(config)]
        case "envoy":
            config = config.with_suffix(".json")
            text = configs.envoy(site)
            command = [str(prepare.ENVOY), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
                       "-c", str(config)]
        case _:
            if name == POSTERN_TWO_SHARDS:
                cpus = [PROXY_CPU, LOAD_CPU]
            config = config.with_suffix(".json")
            text = configs.postern(site, next(_free), cpus)
            command = [str(binary), "run", str(config)]
    config.write_text(text)
    if name.startswith("postern"):
        _check_configuration(binary, config, cpus)
    return Server(name, setup, site.port, cpus, command)


def _check_configuration(binary: Path, config: Path, cpus: list[int]) -> None:
    command = [*pinned(cpus), str(binary), "check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == CONFIGURATION_WRONG:
        raise Refused(f"it refuses {', '.join(complaints_of(done.stdout + done.stderr))} in its configuration")


def complaints_of(text: str) -> list[str]:
    """What `postern check` complains of: the line above each problem names the place."""
    lines = text.splitlines()
    return [place.strip() for place, below in pairwise(lines) if below.startswith("  problem:")]


def _free_ports() -> Iterator[int]:
    for port in count(FIRST_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


_free = _free_ports()

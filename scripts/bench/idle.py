"""The memory that an idle connection costs a proxy, with and without TLS.

A fresh process serves the same number of requests twice: first over a few connections, which warms all that warms up
with use, then one request on each of many connections, which stay open. The difference of its proportional set size,
divided by the number of connections, is the price of one. What the kernel holds for a socket is not in it, and is the
same for all.
"""

import socket
import time
from collections.abc import Callable

from . import procstat
from .cases import SMALL, IdleCase, Protocol
from .processes import Origin, Server, client_of_tls
from .results import Cell
from .settings import SMALL_BODY

BATCH = 50
"""Connections with a request in flight at once; upstream, a proxy needs no more than these."""

PER_ADDRESS = 1_000
"""Connections from one source address, 127.0.0.1 and up. An address has about 28,000 ports, and a port is of no use for
a minute after its connection was closed: this leaves room for all proxies and rounds."""

SETTLE_SECONDS = 1.0

ANSWER_SECONDS = 30
"""Longer than any answer takes, on a machine with much else to do, too."""


def measure_idle(case: IdleCase, start: Callable[[], Server], origin: Origin, number: int, connections: int) -> Cell:
    """Measures a proxy, fresh from `start`, with that many idle connections. `number` is that of the round."""
    with start() as proxy:
        arrivals_before = origin.arrivals()
        try:
            metrics = _measure(proxy, connections)
        except OSError as error:
            return Cell(case.name, proxy.name, number, {}, [str(error)])
        forwarded = origin.arrivals().requests - arrivals_before.requests
    # To warm up, to become idle, and to show that every connection is still open.
    requests = 3 * connections
    invalid = [] if forwarded == requests else [
        f"clients got {requests} responses, but the origin answered {forwarded} requests"]
    return Cell(case.name, proxy.name, number, metrics, invalid)


def _measure(proxy: Server, connections: int) -> dict[str, float]:
    clients: list[socket.socket] = []
    try:
        _warm(proxy, connections)
        time.sleep(SETTLE_SECONDS)
        without = procstat.pss_kib(proxy.pid)
        _in_batches(connections, lambda first, count: clients.extend(_open(proxy, first, count)))
        time.sleep(SETTLE_SECONDS)
        with_them = procstat.pss_kib(proxy.pid)
        _in_batches(connections, lambda first, count: _request_each(clients[first:first + count]))
    finally:
        for client in clients:
            client.close()
    return {
        "kib_per_connection": (with_them - without) / connections,
        "pss_without_kib": without,
        "pss_with_kib": with_them,
        "connections": connections,
    }


def _in_batches(total: int, act: Callable[[int, int], None]) -> None:
    for first in range(0, total, BATCH):
        act(first, min(BATCH, total - first))


def _warm(proxy: Server, requests: int) -> None:
    clients = _connect(proxy, 0, BATCH)
    _in_batches(requests, lambda _first, count: _request_each(clients[:count]))
    for client in clients:
        client.close()


def _open(proxy: Server, first: int, count: int) -> list[socket.socket]:
    """Connections number `first` and on, each of which has had one response."""
    clients = _connect(proxy, first, count)
    _request_each(clients)
    return clients


def _connect(proxy: Server, first: int, count: int) -> list[socket.socket]:
    clients = []
    for number in range(first, first + count):
        source = f"127.0.0.{1 + number // PER_ADDRESS}"
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=ANSWER_SECONDS, source_address=(source, 0))
        clients.append(client_of_tls(client) if proxy.setup.front is Protocol.TLS else client)
    return clients


def _request_each(clients: list[socket.socket]) -> None:
    """One request on each, all in flight together. A connection that the proxy has closed meanwhile is an error."""
    for client in clients:
        client.sendall(f"GET {SMALL} HTTP/1.1\r\nHost: idle\r\n\r\n".encode())
    for client in clients:
        response = b""
        while not response.endswith(b"\r\n\r\n" + SMALL_BODY.encode()):
            received = client.recv(4096)
            if not received:
                raise ConnectionError("the proxy closed an idle connection")
            response += received
        if not response.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"an idle connection got {response[:40]!r}")

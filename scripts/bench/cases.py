"""The cases: which load each is, what the proxies are set up for, and which of them take part."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

SMALL = "/small"
LARGE = "/large"
UNARY = "/bench.Echo/Unary"
"""A gRPC method: what is asked for here is asked for with a message, and answered with one and a status in trailers."""

POSTERN_TWO_SHARDS = "postern-2"
"""The second Postern of a run: two shards, where the other has one. Takes part in one case only."""

HTTP1_PEERS = ("nginx", "haproxy", "envoy", "postern")
TLS_PEERS = ("nginx", "haproxy", "envoy", "h2o", "postern")
"""h2o joins where it was asked for, at the ends of TLS and of HTTP/2."""

NGINX_AND_HAPROXY = ("nginx", "haproxy")


class Protocol(StrEnum):
    """What is spoken on one side of a proxy."""

    HTTP = "HTTP/1.1"
    TLS = "HTTP/1.1 over TLS 1.3"
    H2C = "HTTP/2 by prior knowledge"


@dataclass(frozen=True)
class Setup:
    """What a proxy is configured for. TLS behind it is with a client certificate."""

    front: Protocol
    back: Protocol

    def __str__(self) -> str:
        return f"{self.front} in front, {self.back} behind"


PLAIN = Setup(Protocol.HTTP, Protocol.HTTP)
TLS_FRONT = Setup(Protocol.TLS, Protocol.HTTP)
TLS_BACK = Setup(Protocol.HTTP, Protocol.TLS)
H2_FRONT = Setup(Protocol.H2C, Protocol.HTTP)
H2_BOTH = Setup(Protocol.H2C, Protocol.H2C)


@dataclass(frozen=True)
class Case:
    """One kind of load. Without `rate` the connections send as fast as they get answers (wrk, and h2load for HTTP/2);
    with it, at that many requests a second in all, on a fixed schedule (paced)."""

    name: str
    title: str
    connections: int
    path: str = SMALL
    rate: int | None = None
    client_keeps_alive: bool = True
    setup: Setup = PLAIN
    streams: int = 1
    """Requests at once on each connection."""
    proxies: tuple[str, ...] = HTTP1_PEERS
    """Who takes part: all that can do it, as far as `POSTERN_TWO_SHARDS` is not meant."""
    references: tuple[str, ...] = NGINX_AND_HAPROXY
    """Postern is measured against the best of these. Empty: against none."""
    often: bool = False
    """Measured `OFTEN` times a round: its goal leaves less room than the machine's noise takes."""

    @property
    def compared(self) -> bool:
        """Whether it is measured beside other proxies."""
        return len(self.proxies) > 1

    @property
    def requests_in_flight(self) -> int:
        """As many at once, and so as many that may be cut off when a load generator hangs up."""
        return self.connections * self.streams

    @property
    def upstream_connections_max(self) -> int:
        """How many upstream connections may be opened while the case runs, if upstream connections are reused.
        The warm-up may have ended with every one of them closed: at its end, the load generator hangs up on
        requests in flight."""
        return max(8, self.requests_in_flight)


CASES = (
    Case("c64", "64 connections", connections=64, often=True),
    Case("c1", "1 connection", connections=1, often=True),
    Case("rate8k", "64 connections at 8,000/s", connections=64, rate=8_000),
    Case("large", "64 KiB responses", connections=64, path=LARGE),
    Case("newconn", "new connection per request", connections=64, client_keeps_alive=False),
    Case("tls", "TLS 1.3, 64 connections", connections=64, setup=TLS_FRONT, proxies=TLS_PEERS,
         references=("nginx", "haproxy", "envoy", "h2o")),
    Case("mtls", "client certificate to origin", connections=64, setup=TLS_BACK,
         references=("nginx", "haproxy", "envoy")),
    Case("handshake", "full TLS 1.3 handshakes", connections=64, client_keeps_alive=False, setup=TLS_FRONT,
         proxies=TLS_PEERS, references=("nginx", "haproxy", "envoy", "h2o")),
    Case("h2", "HTTP/2 to HTTP/1.1, 8 x 32", connections=8, streams=32, setup=H2_FRONT, proxies=TLS_PEERS,
         references=("nginx", "haproxy", "envoy", "h2o")),
    Case("h2h2", "HTTP/2 to HTTP/2, 8 x 32", connections=8, streams=32, setup=H2_BOTH,
         proxies=("haproxy", "envoy", "postern"), references=("haproxy", "envoy")),
    Case("grpc", "gRPC unary, 8 x 32", connections=8, streams=32, path=UNARY, setup=H2_BOTH, references=("envoy",)),
)
"""Compared between all proxies that can. nginx has HTTP/2 behind it for gRPC only, Debian's h2o has neither that nor
client certificates there."""

ONE_SHARD = Case("shard1", "one shard", connections=32, rate=4_000, proxies=("postern",), references=())
TWO_SHARDS = Case("shard2", "two shards, twice the load", connections=64, rate=8_000, proxies=(POSTERN_TWO_SHARDS,),
                  references=())
"""Postern beside itself. Each shard gets the same load in both: a loop that has more to do at each wake-up costs less
per request, and that is not what is asked here."""

ALL_CASES = (*CASES, ONE_SHARD, TWO_SHARDS)


@dataclass(frozen=True)
class IdleCase:
    """Connections that had one response each and stay open: what is measured is memory."""

    name: str
    title: str
    connections: int
    setup: Setup
    proxies: tuple[str, ...]
    references: tuple[str, ...] = NGINX_AND_HAPROXY


IDLE = IdleCase("idle", "idle connection", 10_000, PLAIN, HTTP1_PEERS)
TLS_IDLE = IdleCase("tlsidle", "idle TLS connection", 5_000, TLS_FRONT, TLS_PEERS)
IDLE_CASES = (IDLE, TLS_IDLE)

REFERENCES = {case.name: case.references for case in (*ALL_CASES, *IDLE_CASES)}
"""By the name of the case."""

OFTEN = 3


def in_a_round(cases: list[Case]) -> list[Case]:
    """The order of one round: every case once, and those of `often` before each third of the others, so that they meet
    the machine in as many of its moods as possible."""
    often = [case for case in cases if case.often]
    others = [case for case in cases if not case.often]
    third = ceil(len(others) / OFTEN)
    return [case for part in range(OFTEN) for case in (*often, *others[part * third:(part + 1) * third])]

"""The cases: which load each is, and which proxies it is meant for."""

from dataclasses import dataclass

SMALL = "/small"
LARGE = "/large"

POSTERN_TWO_SHARDS = "postern-2"
"""The second Postern of a run: two shards, where the other has one. Takes part in one case only."""


@dataclass(frozen=True)
class Case:
    """One kind of load. Without `rate` the connections send as fast as they get answers (wrk); with it, at that
    many requests a second in all, on a fixed schedule (paced)."""

    name: str
    title: str
    connections: int
    path: str = SMALL
    rate: int | None = None
    client_keeps_alive: bool = True
    only: str | None = None
    """The one proxy that runs this case. None: all but `POSTERN_TWO_SHARDS`."""

    def runs_on(self, proxy: str) -> bool:
        """Whether `proxy` takes part."""
        return proxy == self.only if self.only else proxy != POSTERN_TWO_SHARDS

    @property
    def upstream_connections_max(self) -> int:
        """How many upstream connections may be opened while the case runs, if upstream connections are reused.
        The warm-up may have ended with every one of them closed: at its end, the load generator hangs up on
        requests in flight."""
        return max(8, self.connections)


CASES = (
    Case("c64", "64 connections", connections=64),
    Case("c1", "1 connection", connections=1),
    Case("rate8k", "64 connections at 8,000/s", connections=64, rate=8_000),
    Case("large", "64 KiB responses", connections=64, path=LARGE),
    Case("newconn", "new connection per request", connections=64, client_keeps_alive=False),
)
"""Compared between all proxies."""

ONE_SHARD = Case("shard1", "one shard", connections=32, rate=4_000, only="postern")
TWO_SHARDS = Case("shard2", "two shards, twice the load", connections=64, rate=8_000, only=POSTERN_TWO_SHARDS)
"""Postern beside itself. Each shard gets the same load in both: a loop that has more to do at each wake-up costs less
per request, and that is not what is asked here."""

ALL_CASES = (*CASES, ONE_SHARD, TWO_SHARDS)

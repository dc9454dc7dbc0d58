"""What may become of a request, and what may not: a response is complete and right, or short for a reason that is
known."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TextIO

from .payload import CLOSE, ID, ORIGIN, SUM, Order, checksum

GRACE_SECONDS = 0.5
"""After a backend is back a gateway may still find out that it was away."""

UNTOUCHED_SECONDS = 1.0
"""A request sent this long before the drain has surely been read when it begins."""

GATEWAY_STATUSES = (502, 503, 504)
"""What the gateway may answer in the place of a backend that is away."""

KEPT_VIOLATIONS = 20
"""For the summary; the log has all."""


class Check(Enum):
    """What is checked, in the words of the summary."""

    RESPONSES = "every response is complete and right, or short for a reason that is known"
    BACKENDS = "backends got whole requests only, and no upload twice"
    REST = "when nobody asks, no request, connection or descriptor is left, and no task has panicked"
    MEMORY = "memory does not grow after the first minute"
    DRAIN = "SIGTERM under load: what had begun is finished, in time, and the exit code is 0"


class End(Enum):
    """How the reading of a response ended."""

    COMPLETE = "complete"
    CUT = "cut"
    """The connection ended before the response did."""
    ABORTED = "aborted"
    """The client wanted no more."""


@dataclass
class Exchange:
    """A request that a client sent, and what it got. Times are of the monotonic clock."""

    order: Order
    method: str
    began: float
    is_first: bool = True
    """No other request was unanswered on its connection."""
    status: int | None = None
    fields: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    end: End = End.CUT
    ended: float = 0.0


@dataclass
class Outage:
    """When a process of a backend was killed, and when the next was there."""

    origin: str
    began: float
    ended: float | None = None


class Judge:
    """Collects what happened, and every violation with its evidence."""

    def __init__(self, log: TextIO) -> None:
        self.tally: Counter[str] = Counter()
        """Every request once, by what became of it."""
        self.bytes = 0
        """Of complete bodies."""
        self.violations: Counter[Check] = Counter()
        self.first_violations: list[str] = []
        self.outages: list[Outage] = []
        self.drain_began: float | None = None
        self.drain_seconds: float | None = None
        self._log = log
        self._killed: set[str] = set()
        self._started = time.monotonic()

    def killing(self, origin: str) -> Outage:
        """Notes that a backend's process is about to be killed."""
        outage = Outage(origin, time.monotonic())
        self.outages.append(outage)
        self._killed.add(origin)
        return outage

    @property
    def explained(self) -> int:
        """Requests without a complete response of a backend, for a reason that is known."""
        return self.tally.total() - self.tally["complete"]

    def violate(self, check: Check, what: str) -> None:
        """Notes a violation."""
        self.violations[check] += 1
        line = f"{time.monotonic() - self._started:8.2f} s  {check.name.lower()}: {what}"
        if len(self.first_violations) < KEPT_VIOLATIONS:
            self.first_violations.append(line)
        print(line, file=self._log, flush=True)

    def judge(self, exchange: Exchange) -> None:
        """Whether this may be."""
        exchange.ended = time.monotonic()
        if complaint := self._complaint(exchange):
            origin = exchange.fields.get(ORIGIN, "no origin")
            check = Check.RESPONSES if self.drain_began is None else Check.DRAIN
            self.violate(
                check,
                f"{exchange.method} {exchange.order.target()}: {complaint} ({exchange.end.value}, status "
                f"{exchange.status}, {len(exchange.body)} bytes, {origin}, after "
                f"{exchange.ended - exchange.began:.3f} s)",
            )

    def _complaint(self, exchange: Exchange) -> str | None:
        if exchange.status is None:
            return self._without_response(exchange)
        if 200 <= exchange.status < 300:
            return self._of_origin(exchange)
        if exchange.status in GATEWAY_STATUSES:
            return self._of_gateway(exchange)
        return "undocumented status"

    def _without_response(self, exchange: Exchange) -> str | None:
        if exchange.end is End.ABORTED:
            self.tally["aborted before a response"] += 1
            return None
        if self.drain_began is not None and (
            not exchange.is_first or exchange.began > self.drain_began - UNTOUCHED_SECONDS
        ):
            self.tally["not served: draining"] += 1
            return None
        return "no response"

    def _of_origin(self, exchange: Exchange) -> str | None:
        order, body = exchange.order, exchange.body
        if exchange.fields.get(ID) != order.id:
            return f"the response to another request: {exchange.fields.get(ID)}"
        expected = b"" if exchange.method == "HEAD" else order.body
        if not expected.startswith(body):
            return "bytes that are not of this response"
        was_killed = exchange.fields.get(ORIGIN) in self._killed
        match exchange.end:
            case End.ABORTED:
                self.tally["aborted in the response"] += 1
                return None
            case End.CUT:
                if not was_killed:
                    return "cut, and its backend was not killed"
                self.tally["cut: backend killed"] += 1
                return None
        if len(body) == len(expected):
            if exchange.method != "HEAD" and exchange.fields.get(SUM) != checksum(body):
                return "the checksum does not match"
            self.tally["complete"] += 1
            self.bytes += len(body)
            return None
        if order.framing == CLOSE and was_killed:
            # Nobody can tell the end of a killed backend from the end of such a body.
            self.tally["short without a sign: backend killed"] += 1
            return None
        return "looks complete and is short"

    def _of_gateway(self, exchange: Exchange) -> str | None:
        if exchange.end is End.ABORTED:
            self.tally["aborted in the response"] += 1
            return None
        if exchange.end is End.CUT:
            return "the gateway's own answer is cut"
        try:
            kind = "none" if exchange.method == "HEAD" else json.loads(exchange.body)["type"].rpartition(":")[2]
        except (ValueError, KeyError):
            return f"not a problem document: {bytes(exchange.body[:200])!r}"
        if not any(
            outage.began <= exchange.ended and (outage.ended is None or exchange.began <= outage.ended + GRACE_SECONDS)
            for outage in self.outages
        ):
            return f"{kind}, and every backend was there"
        self.tally[f"{exchange.status}: backend away"] += 1
        return None

"""Bodies that tell whose they are: any part of one names its request and its place in it, to whoever knows the request.

Requests carry everything about the response that they want in their target, so backends keep no state.
"""

import random
import zlib
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

LARGEST = 300 * 1024
"""Bytes of the longest body."""

_NOISE = random.Random(1).randbytes(4 * LARGEST)

ORIGIN = "x-soak-origin"
"""Response: which backend answered, and the how many-th process of it."""
ID = "x-soak-id"
"""Response: the request that it answers."""
SUM = "x-soak-sum"
"""Request and response: the checksum of the body."""

LENGTH, CHUNKED, CLOSE = "length", "chunked", "close"
"""How a body ends: by its length, by its last chunk, with its connection."""

WHOLE, PIECES, LATE = "whole", "pieces", "late"
"""How a backend sends: at once, in pieces with pauses, at once but after a while."""


def body(identity: str, size: int) -> bytes:
    """The body that belongs to `identity`: a part of one block of noise, from a place that depends on it."""
    start = zlib.crc32(identity.encode()) % (len(_NOISE) - LARGEST)
    return _NOISE[start:start + size]


def checksum(content: bytes | bytearray) -> str:
    """As it stands in the field."""
    return f"{zlib.crc32(content):08x}"


@dataclass(frozen=True)
class Order:
    """What a request asks a backend for."""

    id: str
    size: int
    framing: str
    pace: str
    uploads: bool = False
    """The response is the content of the request."""

    @property
    def body(self) -> bytes:
        """The right body of the response."""
        return body(self.id, self.size)

    def target(self) -> str:
        """The request target that says all this."""
        query = {"size": self.size, "framing": self.framing, "pace": self.pace, "uploads": int(self.uploads)}
        return f"/{self.id}?{urlencode(query)}"


def parse_order(target: str) -> Order:
    """What `target` asks for."""
    path, _, query = target.partition("?")
    values = dict(parse_qsl(query))
    return Order(path.strip("/"), int(values["size"]), values["framing"], values["pace"], values["uploads"] == "1")

"""One backend: a process that makes each response from its request alone. It is killed at any moment, so it keeps
nothing.

python3 -m soak.origin NAME PORT
"""

import asyncio
import os
import random
import socket
import sys

from . import payload, wire
from .payload import CHUNKED, CLOSE, ID, LATE, LENGTH, ORIGIN, PIECES, SUM, Order
from .wire import Ended, Head, Malformed, Peer

POST, WRONG = "post", "wrong"
"""The words before what a backend tells: a request with content has begun; something is not as it must be."""

LONGEST_PAUSE = 0.06
"""Seconds between two pieces."""
LATEST = 0.8
"""Seconds before a late response."""


def tell(word: str, what: str) -> None:
    """A line for whoever judges the run; whole even if this process is killed next."""
    os.write(sys.stdout.fileno(), f"{word} {what}\n".encode())


class Origin:
    """What the connections of a backend share: its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def handle(self, peer: Peer) -> None:
        """Serves a connection of the gateway to its end."""
        try:
            while (head := await peer.head()) and await self._serve(peer, head):
                pass
        except Ended:
            pass
        except Malformed as fault:
            tell(WRONG, f"{self._name} got what is no request: {fault}")
        finally:
            peer.close()

    async def _serve(self, peer: Peer, head: Head) -> bool:
        """Answers one request; whether another may follow."""
        method, target, _version = head.start.split(" ")
        order = payload.parse_order(target)
        fields = {ID: order.id, ORIGIN: self._name}
        if order.uploads:
            tell(POST, order.id)
            fields[SUM] = head.fields[SUM]
            if order.pace == PIECES:
                # Both directions at once: each piece goes back as it comes.
                pieces = self._received(peer, head, order)
            else:
                content = b"".join([piece async for piece in self._received(peer, head, order)])
                pieces = _paced(content, order)
        else:
            fields[SUM] = payload.checksum(order.body)
            pieces = _paced(order.body, order)
        if order.pace == LATE:
            await asyncio.sleep(random.uniform(0.0, LATEST))
        await peer.send(_encode_head(order, fields))
        if method == "HEAD":
            return order.framing != CLOSE
        async for piece in pieces:
            if piece:
                await peer.send(wire.chunk(piece) if order.framing == CHUNKED else piece)
        if order.framing == CHUNKED:
            await peer.send(wire.chunk(b""))
        return order.framing != CLOSE

    async def _received(self, peer: Peer, head: Head, order: Order):
        """The pieces of an upload. One that looks whole must be right."""
        content = bytearray()
        async for piece in peer.content(head, otherwise_to_end=False):
            content += piece
            yield piece
        if payload.checksum(content) != head.fields[SUM] or len(content) != order.size:
            tell(WRONG, f"{self._name} got an upload that looked whole and was not: {order.id}, {len(content)} bytes "
                        f"of {order.size}")


async def _paced(content: bytes, order: Order):
    if order.pace != PIECES:
        yield content
        return
    count = random.randint(2, 10)
    cuts = sorted(random.randint(0, len(content)) for _ in range(count - 1))
    for start, end in zip([0, *cuts], [*cuts, len(content)]):
        yield content[start:end]
        await asyncio.sleep(random.uniform(0.0, LONGEST_PAUSE))


def _encode_head(order: Order, fields: dict[str, str]) -> bytes:
    framing = {
        LENGTH: f"Content-Length: {order.size}",
        CHUNKED: "Transfer-Encoding: chunked",
        CLOSE: "Connection: close",
    }
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields.items()), framing[order.framing]]
    return "\r\n".join([*lines, "", ""]).encode()


def listen(port: int) -> socket.socket:
    """A listening socket on loopback."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(512)
    sock.setblocking(False)
    return sock


def main() -> None:
    """Serves until it is killed."""
    name, port = sys.argv[1], int(sys.argv[2])
    asyncio.run(wire.serve(listen(port), Origin(name).handle))


if __name__ == "__main__":
    main()

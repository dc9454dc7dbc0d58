"""The clients: each profile is one way to use a connection, from its opening to its end."""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from . import payload, wire
from .judge import Check, End, Exchange, Judge
from .payload import CHUNKED, CLOSE, LARGEST, LATE, LENGTH, PIECES, SUM, WHOLE, Order
from .wire import Ended, Enough, Malformed, Peer

PATIENCE_SECONDS = 60
"""Far longer than any exchange takes."""

SLOW_RECEIVE_BUFFER = 8 * 1024


class Refused(Exception):
    """Nobody listens."""


@dataclass
class Request:
    """What a client sends."""

    order: Order
    method: str = "GET"
    version: str = "1.1"
    closes: bool = False
    chunked_upload: bool = False

    def head(self) -> bytes:
        """The head, to the empty line."""
        lines = [f"{self.method} {self.order.target()} HTTP/{self.version}", "Host: soak.test"]
        if self.closes:
            lines.append("Connection: close")
        if self.order.uploads:
            lines.append(f"{SUM}: {payload.checksum(self.order.body)}")
            length = f"Content-Length: {self.order.size}"
            lines.append("Transfer-Encoding: chunked" if self.chunked_upload else length)
        return "\r\n".join([*lines, "", ""]).encode()

    def upload(self, rng: random.Random) -> Iterator[bytes]:
        """The content in pieces, framed."""
        content, start = self.order.body, 0
        while start < len(content):
            end = start + rng.randint(1, 64 * 1024)
            piece = content[start:end]
            yield wire.chunk(piece) if self.chunked_upload else piece
            start = end
        if self.chunked_upload:
            yield wire.chunk(b"")


class Client:
    """One client: it opens connections one after the other, and judges all that comes back."""

    def __init__(self, name: str, seed: str, load: "Load") -> None:
        self.rng = random.Random(f"{seed}/{name}")
        self._name = name
        self._load = load
        self._orders = 0

    @property
    def may_go_on(self) -> bool:
        """Whether another request may be sent on a connection that is open."""
        return self._load.is_on

    async def connect(self, receive_buffer: int | None = None, **options) -> Peer:
        """A new connection to the gateway; `options` are those of `Peer`."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._load.address)
        except ConnectionError as error:
            sock.close()
            raise Refused from error
        return Peer(sock, **options)

    def order(self, uploads: bool = False, smallest: int = 0) -> Order:
        """The next request's, with a size between none and the largest; small ones are more frequent."""
        self._orders += 1
        largest = self.rng.choice((0, 200, 1000, 1000, 10_000, 10_000, 70_000, LARGEST))
        size = self.rng.randint(smallest, max(smallest, largest))
        framing = self.rng.choice((LENGTH, LENGTH, CHUNKED, CHUNKED, CLOSE))
        pace = self.rng.choice((WHOLE, WHOLE, WHOLE, PIECES, LATE))
        return Order(f"{self._name}-{self._orders}", size, framing, pace, uploads)

    async def think(self, longest: float = 0.1) -> None:
        """A moment of quiet."""
        await asyncio.sleep(self.rng.uniform(0.0, longest))

    async def talk(self, peer: Peer, *requests: Request) -> bool:
        """Sends `requests` at once and judges each response. Whether the connection can be used for more."""
        began = time.monotonic()
        sending = asyncio.create_task(self._send(peer, requests))
        try:
            for number, request in enumerate(requests):
                exchange = Exchange(request.order, request.method, began, is_first=number == 0)
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        closes = await _receive(peer, exchange)
                except TimeoutError:
                    self.violate(f"nothing happens: {request.method} {request.order.target()}")
                    return False
                except Malformed as fault:
                    self.violate(f"{request.method} {request.order.target()}: not HTTP: {fault}")
                    return False
                self._load.judge.judge(exchange)
                if closes or request.closes or exchange.end is not End.COMPLETE:
                    return False
            return sending.done()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def violate(self, what: str) -> None:
        """Notes that a response is none."""
        self._load.judge.violate(Check.RESPONSES, what)

    def count(self, what: str) -> None:
        """Counts something that may be."""
        self._load.judge.tally[what] += 1

    async def _send(self, peer: Peer, requests: tuple[Request, ...]) -> None:
        try:
            await peer.send(b"".join(request.head() for request in requests))
            for request in requests:
                if request.order.uploads:
                    rests = self.rng.random() < 0.3
                    for piece in request.upload(self.rng):
                        await peer.send(piece)
                        if rests:
                            await self.think(0.05)
        except Ended:
            # What was answered until then is to be read, and says what this means.
            pass


async def _receive(peer: Peer, exchange: Exchange) -> bool:
    """Reads a response into `exchange`. Whether it is the last of its connection."""
    closes = True
    try:
        head = await peer.head()
        if head is None:
            return True
        version, _, status = head.start.partition(" ")
        if version != "HTTP/1.1" or not status[:3].isdigit():
            raise Malformed(head.start)
        exchange.status, exchange.fields = int(status[:3]), head.fields
        closes = head.ends_connection()
        if exchange.method != "HEAD":
            async for piece in peer.content(head, otherwise_to_end=True):
                exchange.body += piece
        exchange.end = End.COMPLETE
    except Ended:
        exchange.end = End.CUT
    except Enough:
        exchange.end = End.ABORTED
    return closes


# === Profiles ===


async def keep_alive(client: Client) -> None:
    """One request after the other on one connection."""
    peer = await client.connect()
    try:
        for _ in range(client.rng.randint(1, 60)):
            method = "HEAD" if client.rng.random() < 0.1 else "GET"
            if not await client.talk(peer, Request(client.order(), method)) or not client.may_go_on:
                return
            await client.think()
    finally:
        peer.close()


async def pipeline(client: Client) -> None:
    """Several requests at once, on one connection, again and again."""
    peer = await client.connect()
    try:
        for _ in range(client.rng.randint(1, 10)):
            requests = [Request(client.order()) for _ in range(client.rng.randint(2, 8))]
            if not await client.talk(peer, *requests) or not client.may_go_on:
                return
            await client.think(0.3)
    finally:
        peer.close()


async def post(client: Client) -> None:
    """Content up and the same content down; with a backend that sends in pieces, both at once."""
    peer = await client.connect()
    try:
        for _ in range(client.rng.randint(1, 20)):
            chunked = client.rng.random() < 0.5
            request = Request(client.order(uploads=True), "POST", chunked_upload=chunked)
            if not await client.talk(peer, request) or not client.may_go_on:
                return
            await client.think(0.2)
    finally:
        peer.close()


async def fresh(client: Client) -> None:
    """A connection for one request, in HTTP/1.0 now and then, where a body may end with the connection."""
    peer = await client.connect()
    try:
        version = client.rng.choice(("1.0", "1.1"))
        await client.talk(peer, Request(client.order(), version=version, closes=client.rng.random() < 0.5))
    finally:
        peer.close()


async def slow(client: Client) -> None:
    """Reads a little at a time, so that the gateway and the backend have to wait."""
    pause = client.rng.uniform(0.01, 0.05)
    peer = await client.connect(SLOW_RECEIVE_BUFFER, read_bytes=client.rng.randint(2048, 16384), pause=pause)
    try:
        while await client.talk(peer, Request(client.order(smallest=32 * 1024))) and client.may_go_on:
            pass
    finally:
        peer.close()


async def aborting(client: Client) -> None:
    """Goes away at any point, in order or with a reset."""
    where, orderly = client.rng.choice(("head", "upload", "response")), client.rng.random() < 0.5
    peer = await client.connect(budget=client.rng.randrange(LARGEST) if where == "response" else None)
    try:
        if where == "response":
            await client.talk(peer, Request(client.order(smallest=64 * 1024)))
        else:
            request = Request(client.order(uploads=where == "upload"), chunked_upload=client.rng.random() < 0.5)
            request.method = "POST" if where == "upload" else "GET"
            client.count(f"aborted in the {where}")
            await _send_part(client, peer, request)
    except Ended:
        pass
    if orderly:
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            # The gateway was faster.
            pass
        await client.think(0.2)
        peer.close()
    else:
        peer.reset()


async def _send_part(client: Client, peer: Peer, request: Request) -> None:
    """Sends a request to somewhere before its end."""
    head = request.head()
    if not request.order.uploads:
        await peer.send(head[:client.rng.randrange(1, len(head))])
    else:
        content = b"".join(request.upload(client.rng))
        # What the backend sends meanwhile is not read, and what it waits for does not come.
        await peer.send(head)
        await peer.send(content[:client.rng.randrange(max(1, len(content)))])
    await client.think()


PROFILES: dict[Callable[[Client], Awaitable[None]], int] = {
    keep_alive: 20,
    pipeline: 6,
    post: 12,
    fresh: 12,
    slow: 8,
    aborting: 8,
}
"""How many clients there are of each."""


class Load:
    """All clients, and whether they may send."""

    def __init__(self, address: tuple[str, int], seed: str, judge: Judge) -> None:
        self.address = address
        self.judge = judge
        self._seed = seed
        self._gate = asyncio.Event()
        self._is_over = False
        self._active = 0

    @property
    def is_on(self) -> bool:
        """Whether clients may send."""
        return self._gate.is_set() and not self._is_over

    @property
    def active(self) -> int:
        """Clients that have a connection."""
        return self._active

    def clients(self) -> list[Awaitable[None]]:
        """The clients, to be run."""
        return [
            self._run(profile, Client(f"{profile.__name__}{number}", self._seed, self))
            for profile, count in PROFILES.items()
            for number in range(count)
        ]

    def resume(self) -> None:
        """Lets clients send."""
        self._gate.set()

    def pause(self) -> None:
        """Lets clients finish what they have begun, and close their connections."""
        self._gate.clear()

    def end(self) -> None:
        """The same, for good."""
        self._is_over = True
        self._gate.set()

    async def _run(self, profile: Callable[[Client], Awaitable[None]], client: Client) -> None:
        while await self._gate.wait() and not self._is_over:
            self._active += 1
            try:
                await profile(client)
            except Refused:
                if self.judge.drain_began is not None:
                    return
                self.judge.violate(Check.RESPONSES, "a connection was refused")
                await asyncio.sleep(1.0)
            finally:
                self._active -= 1
            await client.think()

"""HTTP/1.1 as both the clients and the backends of the run speak it: little of it, and strictly. It shares nothing with
Postern."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

READ_BYTES = 64 * 1024
LONGEST_LINE = 16 * 1024
FRAMING = ("content-length", "transfer-encoding")


class Ended(Exception):
    """The peer has closed the connection, in order or with a reset."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Enough(Exception):
    """As many bytes have come as were wanted."""


class Malformed(Exception):
    """What came is no HTTP."""


@dataclass(frozen=True)
class Head:
    """The first line of a message, and its fields by their names in lower case."""

    start: str
    fields: dict[str, str]

    def ends_connection(self) -> bool:
        """Whether the sender will send nothing after this message."""
        return self.fields.get("connection", "").lower() == "close"


class Peer:
    """One end of a connection."""

    def __init__(self, sock: socket.socket, read_bytes: int = READ_BYTES, pause: float = 0.0,
                 budget: int | None = None) -> None:
        """Reads at most `read_bytes` at once and rests for `pause` seconds after that; reading past `budget` bytes in
        all raises `Enough`."""
        self.sock = sock
        self._read_bytes = read_bytes
        self._pause = pause
        self._budget = budget
        self._arrived = bytearray()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends everything, at the pace that the other side takes it."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended(reset=True) from error

    async def head(self) -> Head | None:
        """The head of the next message; `None` when the connection ended in order before its first byte."""
        try:
            start = await self._line()
        except Ended as ended:
            if ended.reset or self._arrived:
                raise
            return None
        fields: dict[str, str] = {}
        while line := await self._line():
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or name in fields and name in FRAMING:
                raise Malformed(f"field {line!r}")
            fields[name] = value.strip()
        return Head(start, fields)

    async def content(self, head: Head, otherwise_to_end: bool) -> AsyncIterator[bytes]:
        """The pieces of the body that belongs to `head`. Without length and chunks it is empty, or all there is."""
        fields = head.fields
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].lower() != "chunked" or "content-length" in fields:
                raise Malformed(f"framing {fields}")
            while size := _chunk_size(await self._line()):
                async for piece in self._exactly(size):
                    yield piece
                if await self._line():
                    raise Malformed("no line end behind a chunk")
            while await self._line():
                pass
        elif "content-length" in fields:
            if not fields["content-length"].isascii() or not fields["content-length"].isdigit():
                raise Malformed(f"content-length {fields['content-length']!r}")
            async for piece in self._exactly(int(fields["content-length"])):
                yield piece
        elif otherwise_to_end:
            try:
                while True:
                    if not self._arrived:
                        await self._fill()
                    piece = bytes(self._arrived)
                    self._arrived.clear()
                    yield piece
            except Ended as ended:
                if ended.reset:
                    raise

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if not self._arrived:
                await self._fill()
            piece = bytes(self._arrived[:size])
            del self._arrived[:size]
            size -= len(piece)
            yield piece

    async def _line(self) -> str:
        searched = 0
        while (end := self._arrived.find(b"\r\n", searched)) < 0:
            if len(self._arrived) > LONGEST_LINE:
                raise Malformed(f"no line end in {bytes(self._arrived[:80])!r}..")
            searched = max(0, len(self._arrived) - 1)
            await self._fill()
        line = bytes(self._arrived[:end])
        del self._arrived[:end + 2]
        if not line.isascii() or b"\r" in line or b"\n" in line or b"\0" in line:
            raise Malformed(f"line {line[:80]!r}")
        return line.decode("ascii")

    async def _fill(self) -> None:
        if self._budget is not None and self._budget <= 0:
            raise Enough
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, self._read_bytes)
        except ConnectionResetError as error:
            raise Ended(reset=True) from error
        if not data:
            raise Ended(reset=False)
        if self._budget is not None:
            # What is beyond counts as never read.
            data = data[:self._budget]
            self._budget -= len(data)
        self._arrived += data
        if self._pause:
            await asyncio.sleep(self._pause)

    def close(self) -> None:
        """An orderly end, unless something has come that was not read: then the kernel resets."""
        self.sock.close()

    def reset(self) -> None:
        """An end by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def _chunk_size(line: str) -> int:
    if not line or not all(digit in "0123456789abcdefABCDEF" for digit in line):
        raise Malformed(f"chunk size {line!r}")
    return int(line, 16)


def chunk(piece: bytes) -> bytes:
    """`piece` as a chunk; an empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


async def serve(sock: socket.socket, handle: Callable[[Peer], Awaitable[None]]) -> None:
    """Accepts for ever and handles each connection in a task of its own."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while True:
        accepted, _ = await loop.sock_accept(sock)
        accepted.setblocking(False)
        task = asyncio.create_task(handle(Peer(accepted)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

"""A WebSocket server that echoes, and clients for it, by Debian's python3-websockets.

    peer.py server [CHAIN KEY]    prints the port it listens on, then the code with which each connection ended
    peer.py CASE URI [CA]         a case of CASES; prints what a test asks about
"""

import asyncio
import ssl
import sys

import websockets

PATIENCE = 20
LARGE = 8 * 1024 * 1024
NAME = "example.com"


async def echo(socket, *_):
    try:
        async for message in socket:
            if message == "close":
                await socket.close(4002, "as you wish")
            elif len(message) > 2 and message[0] == message[-1]:
                third = len(message) // 3
                await socket.send([message[:third], message[third:-third], message[-third:]])
            else:
                await socket.send(message)
    except websockets.ConnectionClosed:
        pass
    say("closed", socket.close_code)


async def serve(*certificate):
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    async with websockets.serve(echo, "127.0.0.1", 0, ssl=context, max_size=None, ping_interval=None) as server:
        say(server.sockets[0].getsockname()[1])
        await asyncio.Future()


async def messages(socket):
    """Every kind of message comes back as it was sent."""
    large = bytes(range(256)) * (LARGE // 256)
    sent = ["text", "t\u00e4xt \U0001f600", "", b"", bytes(range(256)), b"x" * 125, b"yx" * 63, b"yx" * 32768, large]
    for message in sent:
        await socket.send(message)
        assert await socket.recv() == message
    # In pieces, answered in pieces, with a ping between them.
    for pieces in (["one, ", "two, ", "three, o"], [b"\x00", b"\x01" * 70000, b"", b"\x00"]):
        await socket.send(pieces)
        await asyncio.wait_for(await socket.ping(b"are you there?"), PATIENCE)
        assert await socket.recv() == type(pieces[0])().join(pieces)
    # Both ways at once.
    await asyncio.gather(*(socket.send(large) for _ in range(3)), expect(socket, 3 * [large]))
    await socket.close(4001, "enough")


async def expect(socket, messages):
    for message in messages:
        assert await socket.recv() == message


async def ask_to_close(socket):
    await socket.send("close")
    await socket.wait_closed()


async def stay(socket):
    """Says something, and then nothing any more."""
    await socket.send("hello")
    assert await socket.recv() == "hello"
    say("open")
    await socket.wait_closed()


CASES = {"messages": messages, "ask_to_close": ask_to_close, "stay": stay}


async def run(case, uri, *ca):
    tls = {"ssl": ssl.create_default_context(cafile=ca[0]), "server_hostname": NAME} if ca else {}
    async with websockets.connect(uri, max_size=None, ping_interval=None, **tls) as socket:
        await asyncio.wait_for(CASES[case](socket), PATIENCE)
    say("closed", socket.close_code)


def say(*words):
    print(*words, flush=True)


asyncio.run(serve(*sys.argv[2:]) if sys.argv[1] == "server" else run(*sys.argv[1:]))

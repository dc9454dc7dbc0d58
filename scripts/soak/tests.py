"""Facts about the judging parts, which a run that goes well never shows: python3 -m unittest soak.tests"""

import asyncio
import io
import json
import socket
import time
import unittest
from collections.abc import Awaitable, Callable

from . import payload
from .clients import Client, Load, Request
from .gateway import complaints
from .judge import GRACE_SECONDS, Check, End, Exchange, Judge
from .memory import FEWEST_SAMPLES, TOLERATED_KIB, TOLERATED_SHARE, WARM_UP_SECONDS, Sample, trends
from .payload import CHUNKED, CLOSE, ID, LENGTH, ORIGIN, SUM, Order
from .wire import Ended, Malformed, Peer

ORDER = Order("one", 1000, LENGTH, payload.WHOLE)


def judge() -> Judge:
    """One that has seen nothing."""
    return Judge(io.StringIO())


def response(order: Order = ORDER, **changes) -> Exchange:
    """A right response to `order`, but for `changes`."""
    fields = {ID: order.id, ORIGIN: "b0.1", SUM: payload.checksum(order.body)}
    right = {"status": 200, "fields": fields, "body": bytearray(order.body), "end": End.COMPLETE}
    return Exchange(order, "GET", time.monotonic(), **{**right, **changes})


def problem(**changes) -> Exchange:
    """The gateway's own answer."""
    body = json.dumps({"type": "urn:postern:problem:connect-failed"}).encode()
    return response(**{"status": 502, "fields": {}, "body": bytearray(body), **changes})


class Responses(unittest.TestCase):
    """When a response is right."""

    def assert_violates(self, subject: Judge, exchange: Exchange, words: str) -> None:
        subject.judge(exchange)
        self.assertEqual(sum(subject.violations.values()), 1, words)
        self.assertIn(words, subject.first_violations[0])

    def assert_passes(self, subject: Judge, exchange: Exchange) -> None:
        subject.judge(exchange)
        self.assertEqual(subject.first_violations, [])

    def test_a_complete_one_with_its_own_bytes_passes(self) -> None:
        self.assert_passes(judge(), response())

    def test_each_wrong_one_is_a_violation(self) -> None:
        other = Order("other", ORDER.size, LENGTH, payload.WHOLE)
        flipped = bytearray(ORDER.body)
        flipped[500] ^= 1
        for exchange, words in [
            (response(fields={ID: "other", ORIGIN: "b0.1"}), "response to another request"),
            (response(body=bytearray(other.body)), "not of this response"),
            (response(body=flipped), "not of this response"),
            (response(body=flipped[:700], end=End.ABORTED), "not of this response"),
            (response(body=bytearray(ORDER.body + b"x")), "not of this response"),
            (response(body=bytearray(ORDER.body[:-1])), "looks complete and is short"),
            (response(fields={ID: "one", ORIGIN: "b0.1", SUM: "0"}), "checksum"),
            (response(body=bytearray(ORDER.body[:-1]), end=End.CUT), "its backend was not killed"),
            (response(status=None, body=bytearray(), end=End.CUT), "no response"),
            (response(status=500), "undocumented status"),
            (response(status=404), "undocumented status"),
            (problem(), "every backend was there"),
            (problem(end=End.CUT), "own answer is cut"),
            (problem(body=bytearray(b"<html>")), "not a problem document"),
        ]:
            with self.subTest(words):
                self.assert_violates(judge(), exchange, words)

    def test_the_death_of_its_own_backend_explains_a_cut(self) -> None:
        subject = judge()
        subject.killing("b0.1")
        self.assert_passes(subject, response(body=bytearray(ORDER.body[:10]), end=End.CUT))
        another = response(fields={ID: "one", ORIGIN: "b0.2"}, body=bytearray(ORDER.body[:10]), end=End.CUT)
        self.assert_violates(subject, another, "its backend was not killed")

    def test_only_a_body_that_ends_with_its_connection_may_be_short_without_a_sign(self) -> None:
        for framing, is_right in [(CLOSE, True), (CHUNKED, False), (LENGTH, False)]:
            with self.subTest(framing):
                subject, order = judge(), Order("one", 1000, framing, payload.WHOLE)
                subject.killing("b0.1")
                subject.judge(response(order, body=bytearray(order.body[:10])))
                self.assertEqual(not subject.first_violations, is_right)

    def test_an_outage_explains_a_problem_while_it_lasts(self) -> None:
        subject = judge()
        outage = subject.killing("b0.1")
        self.assert_passes(subject, problem())
        outage.ended = time.monotonic() - 2 * GRACE_SECONDS
        self.assert_violates(subject, problem(), "every backend was there")

    def test_a_drain_explains_only_what_was_not_begun(self) -> None:
        now = time.monotonic()
        for began, is_first, is_right in [(now, True, True), (now - 5, False, True), (now - 5, True, False)]:
            with self.subTest(began=began, is_first=is_first):
                subject = judge()
                subject.drain_began = now
                silent = response(status=None, body=bytearray(), end=End.CUT, is_first=is_first)
                silent.began = began
                subject.judge(silent)
                self.assertEqual(subject.violations[Check.DRAIN], 0 if is_right else 1)


class Wire(unittest.IsolatedAsyncioTestCase):
    """What a client makes of bytes."""

    async def read(self, sent: bytes, reset: bool = False) -> bytes:
        """The body of the response `sent`, after which the connection ends."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            far = Peer(listener.accept()[0])
        sock.setblocking(False)
        with sock:
            far.sock.sendall(sent)
            peer = Peer(sock)
            try:
                head = await peer.head()
                assert head is not None
            finally:
                far.reset() if reset else far.close()
            return b"".join([piece async for piece in peer.content(head, otherwise_to_end=True)])

    async def test_every_way_to_end_a_body_is_understood(self) -> None:
        for fields, sent in [
            ("Content-Length: 5", b"hello"),
            ("Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
            ("Connection: close", b"hello"),
        ]:
            with self.subTest(fields):
                self.assertEqual(await self.read(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + sent), b"hello")

    async def test_a_body_without_its_end_is_none(self) -> None:
        for fields, sent in [
            ("Content-Length: 5", b"hell"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
        ]:
            with self.subTest(fields), self.assertRaises(Ended):
                await self.read(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + sent)

    async def test_a_reset_ends_no_body(self) -> None:
        with self.assertRaises(Ended):
            await self.read(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", reset=True)

    async def test_framing_that_can_be_read_in_two_ways_is_malformed(self) -> None:
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: +5",
            "Transfer-Encoding: gzip, chunked",
        ]:
            with self.subTest(fields), self.assertRaises(Malformed):
                await self.read(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode())


class Clients(unittest.IsolatedAsyncioTestCase):
    """What a client makes of a server."""

    async def ask(self, answer: Callable[[Peer], Awaitable[None]]) -> tuple[Judge, bool]:
        """One request to a server that does `answer`; the verdict, and whether the connection can be used for more."""
        subject = judge()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = Client("client", "seed", Load(listener.getsockname(), "seed", subject))
            peer = await client.connect()
            far = Peer(listener.accept()[0])
        far.sock.setblocking(False)
        serving = asyncio.create_task(answer(far))
        usable = await client.talk(peer, Request(ORDER))
        await serving
        peer.close()
        far.close()
        return subject, usable

    async def test_a_right_response_is_counted_and_keeps_the_connection(self) -> None:
        async def answer(far: Peer) -> None:
            await far.head()
            fields = f"{ID}: one\r\n{SUM}: {payload.checksum(ORDER.body)}\r\nContent-Length: 1000"
            await far.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + ORDER.body)

        subject, usable = await self.ask(answer)
        self.assertEqual((subject.tally["complete"], subject.first_violations, usable), (1, [], True))

    async def test_a_server_that_closes_without_a_word_is_a_violation(self) -> None:
        async def answer(far: Peer) -> None:
            await far.head()
            far.close()

        subject, usable = await self.ask(answer)
        self.assertEqual((subject.violations[Check.RESPONSES], usable), (1, False))

    async def test_what_is_no_http_is_a_violation(self) -> None:
        async def answer(far: Peer) -> None:
            await far.send(b"hello\r\n\r\n")

        subject, usable = await self.ask(answer)
        self.assertEqual((subject.violations[Check.RESPONSES], usable), (1, False))


class Rest(unittest.TestCase):
    """What is left when nobody asks."""

    QUIET = {
        'postern_requests_open{listener="public"}': 0,
        'postern_connections_open{listener="public"}': 0,
        'postern_upstream_queued{upstream="app"}': 0,
        'postern_upstream_connections_open{upstream="app"}': 4,
        'postern_upstream_connections_idle{upstream="app"}': 4,
        "postern_task_panics_total": 0,
        "postern_accept_errors_total": 0,
    }

    def test_idle_upstream_connections_may_be(self) -> None:
        self.assertEqual(complaints(self.QUIET, descriptors=34, baseline=30), [])

    def test_a_descriptor_too_many_or_too_few_may_not(self) -> None:
        for descriptors in (33, 35):
            self.assertEqual(len(complaints(self.QUIET, descriptors, baseline=30)), 1)

    def test_each_gauge_that_is_not_at_rest_is_told(self) -> None:
        for name in self.QUIET:
            if not name.startswith("postern_upstream_connections_idle"):
                with self.subTest(name):
                    busy = {**self.QUIET, name: self.QUIET[name] + 1}
                    self.assertEqual(len(complaints(busy, descriptors=34, baseline=30)), 1)


class Memory(unittest.TestCase):
    """When memory grows."""

    def samples(self, per_second: float) -> list[Sample]:
        """Ten minutes at a steady rate of growth in KiB, and a first minute that takes much."""
        kib = [int(40_000 * min(1.0, second / 60) + per_second * second) for second in range(600)]
        return [Sample(second, it, it) for second, it in enumerate(kib)]

    def test_what_the_first_minute_takes_is_no_growth(self) -> None:
        self.assertEqual([trend.grows for trend in trends(self.samples(per_second=0))], [False, False])

    def test_a_steady_leak_is_growth(self) -> None:
        # From the middle of the second fifth to that of the last are three fifths of nine minutes.
        tolerated = (TOLERATED_KIB + 40_000 * TOLERATED_SHARE) / (540 * 3 / 5)
        self.assertEqual([trend.grows for trend in trends(self.samples(per_second=0.5 * tolerated))], [False, False])
        self.assertEqual([trend.grows for trend in trends(self.samples(per_second=1.5 * tolerated))], [True, True])

    def test_too_few_samples_are_not_judged(self) -> None:
        self.assertEqual(trends(self.samples(per_second=9)[:WARM_UP_SECONDS + FEWEST_SAMPLES - 1]), [])


if __name__ == "__main__":
    unittest.main()

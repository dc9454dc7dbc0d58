"""Facts about the judging parts, which a run that goes well never shows: python3 -m unittest bench.tests"""

import json
import unittest
from itertools import pairwise

from . import configs
from .cases import (CASES, H2_BOTH, H2_FRONT, IDLE, NGINX_AND_HAPROXY, OFTEN, ONE_SHARD, PLAIN, POSTERN_TWO_SHARDS,
                    TLS_BACK, TLS_FRONT, TLS_IDLE, TWO_SHARDS, Case, Setup, in_a_round)
from .goals import GOALS, judge
from .load import command_for, read_h2load
from .measure import complaints
from .processes import Arrivals, complaints_of
from .results import Cell, Results

CASES_BY_NAME = {case.name: case for case in CASES}
C64, C1, H2 = (CASES_BY_NAME[name] for name in ("c64", "c1", "h2"))

LIMITS = {"c64": 0.80, "c1": 0.85, "rate8k": 1.00, "large": 1.00, "newconn": 1.00, "tls": 0.90, "mtls": 0.90,
          "handshake": 1.00, "h2": 0.95, "grpc": 0.60}
"""What was promised, to the best reference. h2h2 has no goal."""


class Validity(unittest.TestCase):
    """When a cell counts."""

    def test_requests_cut_off_at_the_end_do_not_invalidate(self) -> None:
        self.assertEqual(complaints(C64, 1000, Arrivals(connections=0, requests=1064)), [])

    def test_every_stream_of_every_connection_may_be_cut_off(self) -> None:
        self.assertEqual(complaints(H2, 1000, Arrivals(connections=0, requests=1256)), [])
        self.assertEqual(len(complaints(H2, 1000, Arrivals(connections=0, requests=1257))), 1)

    def test_responses_that_the_origin_never_gave_invalidate(self) -> None:
        self.assertEqual(len(complaints(C64, 1000, Arrivals(connections=0, requests=999))), 1)

    def test_requests_sent_twice_invalidate(self) -> None:
        self.assertEqual(len(complaints(C64, 1000, Arrivals(connections=0, requests=2000))), 1)

    def test_an_upstream_connection_per_request_invalidates(self) -> None:
        self.assertEqual(len(complaints(C1, 1000, Arrivals(connections=1000, requests=1000))), 1)
        self.assertEqual(len(complaints(H2, 1000, Arrivals(connections=1000, requests=1000))), 1)

    def test_a_silent_proxy_invalidates(self) -> None:
        self.assertEqual(len(complaints(C1, 0, Arrivals(connections=0, requests=0))), 1)


class Goals(unittest.TestCase):
    """When a run reaches its goals."""

    def test_reaching_every_limit_exactly_passes(self) -> None:
        self.assertEqual([verdict for verdict in judge(_run()) if not verdict.passed], [])

    def test_a_worse_figure_misses_the_goals_of_its_case_only(self) -> None:
        for case in LIMITS:
            with self.subTest(case):
                missed = [verdict.goal.what for verdict in judge(_run(worse=case)) if not verdict.passed]
                self.assertNotEqual(missed, [])
                self.assertEqual([what for what in missed if not what.startswith(f"{case}: ")], [])

    def test_too_much_memory_for_an_idle_connection_misses(self) -> None:
        for case, limit in ((IDLE, 1.0), (TLS_IDLE, 15.0)):
            with self.subTest(case.name):
                results = _run()
                results.cells.append(Cell(case.name, "postern", 2, {"kib_per_connection": limit + 0.1}))
                missed = [verdict.goal.what for verdict in judge(results) if not verdict.passed]
                self.assertEqual(missed, [f"{case.name}: KiB per connection"])

    def test_only_the_references_of_a_case_count(self) -> None:
        results = _run()
        self.assertEqual(results.reference("c64", "cpu_us"), "haproxy")
        self.assertEqual(results.reference("tls", "cpu_us"), "h2o")
        self.assertEqual(results.reference("grpc", "cpu_us"), "envoy")
        self.assertEqual(results.ratio("c64", "nginx", "cpu_us"), 1.5)

    def test_without_one_of_its_references_a_case_has_no_ratio(self) -> None:
        results = _run()
        results.cells = [cell for cell in results.cells if (cell.case, cell.proxy) != ("tls", "envoy")]
        self.assertIsNone(results.ratio("tls", "postern", "cpu_us"))
        self.assertIsNotNone(results.ratio("c64", "postern", "cpu_us"))

    def test_ratios_are_of_medians(self) -> None:
        results = _run()
        results.cells += [_cell("c64", "postern", 2, 90.0), _cell("c64", "postern", 3, 1000.0)]
        self.assertEqual(results.ratio("c64", "postern", "cpu_us"), 0.9)

    def test_quartiles_are_of_ratios_between_neighbours(self) -> None:
        # The machine gets slower with each measurement, for both: the ratios tell nothing of it.
        results = Results([_cell("c64", proxy, number, value * number) for number in range(1, 6)
                           for proxy, value in (("nginx", 100.0), ("haproxy", 200.0), ("postern", 50.0))])
        self.assertEqual(results.ratio_quartiles("c64", "postern", "cpu_us"), (0.5, 0.5))
        results.cells = [cell for cell in results.cells if cell.proxy != "postern"]
        results.cells += [_cell("c64", "postern", number, 100.0 * number * ratio)
                          for number, ratio in enumerate((0.5, 0.6, 0.7, 0.8, 2.0), start=1)]
        lower, upper = results.ratio_quartiles("c64", "postern", "cpu_us") or (0, 0)
        self.assertAlmostEqual(lower, 0.6)
        self.assertAlmostEqual(upper, 0.8)

    def test_two_measurements_have_no_quartiles(self) -> None:
        results = Results([_cell("c64", proxy, number, 1.0) for number in (1, 2)
                           for proxy in (*NGINX_AND_HAPROXY, "postern")])
        self.assertIsNone(results.ratio_quartiles("c64", "postern", "cpu_us"))

    def test_an_error_misses(self) -> None:
        results = _run()
        next(cell for cell in results.cells if (cell.case, cell.proxy) == ("h2", "postern")).metrics["errors"] = 1
        missed = [verdict.goal.what for verdict in judge(results) if not verdict.passed]
        self.assertEqual(missed, ["errors in all cases"])

    def test_what_was_not_measured_misses(self) -> None:
        self.assertEqual([verdict.passed for verdict in judge(Results())], [False] * len(GOALS))


class Rounds(unittest.TestCase):
    """The order of the measurements."""

    def test_a_round_has_every_case_once_and_those_with_narrow_goals_oftener(self) -> None:
        order = in_a_round(list(CASES))
        self.assertEqual({case.name: order.count(case) for case in CASES},
                         {case.name: OFTEN if case.name in ("c64", "c1") else 1 for case in CASES})

    def test_other_cases_lie_between_two_measurements_of_the_same(self) -> None:
        order = in_a_round(list(CASES))
        places = [place for place, case in enumerate(order) if case is C64]
        self.assertTrue(all(later - earlier >= 4 for earlier, later in pairwise(places)))

    def test_any_choice_of_cases_makes_a_round(self) -> None:
        self.assertEqual(in_a_round([]), [])
        self.assertEqual(in_a_round([C64]), [C64] * OFTEN)
        self.assertEqual(in_a_round([H2]), [H2])


class Loads(unittest.TestCase):
    """What the load generators are told, and what they say."""

    def test_sessions_are_forgotten_where_handshakes_are_measured_and_nowhere_else(self) -> None:
        for case in CASES:
            preloads = [word for word in command_for(case, 1, 0.5) if word.startswith("LD_PRELOAD=")]
            self.assertEqual(len(preloads), case.name == "handshake", case.name)

    def test_wrk_is_interrupted_in_the_middle_of_a_second_only(self) -> None:
        self.assertEqual(command_for(C64, 1, 2)[0], "wrk")
        words = command_for(C64, 1, 0.3)
        self.assertEqual(words[0], "timeout")
        self.assertEqual(words[words.index("--duration") + 1], "1s")

    def test_a_unary_call_is_a_message_and_asks_for_trailers(self) -> None:
        words = command_for(CASES_BY_NAME["grpc"], 1, 0.5)
        self.assertTrue({"--header=te: trailers", "--header=content-type: application/grpc"} <= set(words))
        self.assertEqual(sum(word.startswith("--data=") for word in words), 1)

    def test_h2load_is_read(self) -> None:
        result = read_h2load(H2LOAD.format(errored=0, timeout=0, redirected=0, wrong=0))
        self.assertEqual((result.requests, result.seconds), (12380, 0.50314))
        self.assertEqual((result.status_errors, result.socket_errors, result.p50_us), (0, 0, None))

    def test_what_h2load_calls_an_error_is_no_answer_and_a_wrong_status_is_one(self) -> None:
        result = read_h2load(H2LOAD.format(errored=3, timeout=2, redirected=1, wrong=7))
        self.assertEqual((result.requests, result.status_errors, result.socket_errors), (12387, 8, 5))

    def test_another_report_is_refused(self) -> None:
        with self.assertRaises(RuntimeError):
            read_h2load("h2load: could not connect")


class Configurations(unittest.TestCase):
    """What the proxies are set up for."""

    def test_postern_speaks_what_the_setup_says_and_no_more(self) -> None:
        for setup, listener_keys, upstream_keys, scheme in (
            (PLAIN, set(), set(), "http"),
            (TLS_FRONT, {"tls"}, set(), "http"),
            (TLS_BACK, set(), {"tls"}, "https"),
            (H2_FRONT, set(configs.POSTERN_H2_LISTENER), set(), "http"),
            (H2_BOTH, set(configs.POSTERN_H2_LISTENER), set(configs.POSTERN_H2_UPSTREAM), "http"),
        ):
            with self.subTest(str(setup)):
                config = json.loads(configs.postern(_site(setup), 2, [0]))
                listener, upstream = config["listeners"][0], config["upstreams"]["origin"]
                self.assertEqual(listener.keys() - {"address", "limits"}, listener_keys)
                self.assertEqual(upstream.keys() - {"endpoints", "limits"}, upstream_keys)
                self.assertEqual(upstream["endpoints"], [f"{scheme}://127.0.0.1:3"])

    def test_whoever_proves_itself_to_the_origin_also_checks_it(self) -> None:
        checks = {"nginx": "proxy_ssl_verify on", "haproxy": "verify required", "envoy": '"trusted_ca"'}
        for name, words in checks.items():
            text = getattr(configs, name)(_site(TLS_BACK))
            self.assertIn(words, text)
            self.assertIn("/client", text)
            self.assertNotIn("/client", getattr(configs, name)(_site(TLS_FRONT)))

    def test_the_places_that_postern_complains_of_are_found(self) -> None:
        self.assertEqual(complaints_of("x.json:\nlisteners[0].http2\n  problem: no such key\n  remedy:  leave it out\n"
                                       "\nupstreams.o.protocol\n  problem: no such key\n"),
                         ["listeners[0].http2", "upstreams.o.protocol"])


H2LOAD = """Main benchmark duration is over for thread #0. Stopping all clients.

finished in 503.14ms, 24760.00 req/s, 6.87MB/s
requests: 12380 total, 12636 started, 12380 done, 12380 succeeded, 5 failed, {errored} errored, {timeout} timeout
status codes: 12380 2xx, {redirected} 3xx, 0 4xx, {wrong} 5xx
traffic: 3.44MB (3602959) total, 1.31MB (1374180) headers (space savings 39.34%), 1.51MB (1584640) data
"""


def _site(setup: Setup) -> configs.Site:
    return configs.Site(setup, 1, 3, 20_000)


def _cell(case: str, proxy: str, number: int, value: float) -> Cell:
    return Cell(case, proxy, number, {"cpu_us": value, "p50_us": value, "p99_us": value, "errors": 0})


def _run(worse: str = "") -> Results:
    """One round in which Postern reaches every limit exactly, but for the case `worse`. The last of a case's references
    takes 100 of everything, the others 150, and who is no reference next to nothing."""
    cells = [Cell(IDLE.name, "postern", 1, {"kib_per_connection": 1.0}),
             Cell(TLS_IDLE.name, "postern", 1, {"kib_per_connection": 15.0}),
             _cell(ONE_SHARD.name, "postern", 1, 100.0), _cell(TWO_SHARDS.name, POSTERN_TWO_SHARDS, 1, 110.0)]
    for case in CASES:
        cells += [_cell(case.name, proxy, 1, _peer(case, proxy)) for proxy in case.proxies if proxy != "postern"]
        limit = 100 * LIMITS.get(case.name, 10)
        cells.append(_cell(case.name, "postern", 1, limit + (1 if case.name == worse else 0)))
    return Results(cells)


def _peer(case: Case, proxy: str) -> float:
    return 100.0 if proxy == case.references[-1] else 150.0 if proxy in case.references else 1.0


if __name__ == "__main__":
    unittest.main()

"""Facts about the judging parts, which a run that goes well never shows: python3 -m unittest bench.tests"""

import unittest

from .cases import CASES, ONE_SHARD, POSTERN_TWO_SHARDS, TWO_SHARDS
from .goals import GOALS, judge
from .measure import complaints
from .processes import Arrivals
from .results import IDLE, Cell, Results

C64 = next(case for case in CASES if case.name == "c64")
C1 = next(case for case in CASES if case.name == "c1")


class Validity(unittest.TestCase):
    """When a cell counts."""

    def test_requests_cut_off_at_the_end_do_not_invalidate(self) -> None:
        self.assertEqual(complaints(C64, 1000, Arrivals(connections=0, requests=1064)), [])

    def test_responses_that_the_origin_never_gave_invalidate(self) -> None:
        self.assertEqual(len(complaints(C64, 1000, Arrivals(connections=0, requests=999))), 1)

    def test_requests_sent_twice_invalidate(self) -> None:
        self.assertEqual(len(complaints(C64, 1000, Arrivals(connections=0, requests=2000))), 1)

    def test_an_upstream_connection_per_request_invalidates(self) -> None:
        self.assertEqual(len(complaints(C1, 1000, Arrivals(connections=1000, requests=1000))), 1)

    def test_a_silent_proxy_invalidates(self) -> None:
        self.assertEqual(len(complaints(C1, 0, Arrivals(connections=0, requests=0))), 1)


class Goals(unittest.TestCase):
    """When a run reaches its goals."""

    def test_reaching_every_limit_exactly_passes(self) -> None:
        self.assertTrue(all(verdict.passed for verdict in judge(_run(postern=80.0))))

    def test_ratios_are_to_the_better_reference(self) -> None:
        results = _run(postern=80.0)
        self.assertEqual(results.reference("c64", "cpu_us"), 100.0)
        self.assertEqual(results.ratio("c64", "haproxy", "cpu_us"), 1.5)

    def test_ratios_are_of_medians(self) -> None:
        results = _run(postern=80.0)
        results.cells += [_cell("c64", "postern", 2, 90.0), _cell("c64", "postern", 3, 1000.0)]
        self.assertEqual(results.ratio("c64", "postern", "cpu_us"), 0.9)

    def test_a_worse_figure_misses(self) -> None:
        missed = [verdict.goal.what for verdict in judge(_run(postern=81.0)) if not verdict.passed]
        self.assertEqual(missed, ["c64: CPU per request, ratio"])

    def test_an_error_misses(self) -> None:
        results = _run(postern=80.0)
        results.cells[-1].metrics["errors"] = 1
        missed = [verdict.goal.what for verdict in judge(results) if not verdict.passed]
        self.assertEqual(missed, ["errors in all cases"])

    def test_what_was_not_measured_misses(self) -> None:
        self.assertEqual([verdict.passed for verdict in judge(Results())], [False] * len(GOALS))


def _cell(case: str, proxy: str, number: int, value: float) -> Cell:
    return Cell(case, proxy, number, {"cpu_us": value, "p50_us": value, "p99_us": value, "errors": 0})


def _run(postern: float) -> Results:
    """One round in which nginx takes 100 of everything, HAProxy 150 and Postern `postern`."""
    values = {"nginx": 100.0, "haproxy": 150.0, "postern": postern}
    cells = [Cell(IDLE, "postern", 1, {"kib_per_connection": 1.0})]
    cells += [_cell(case.name, proxy, 1, value) for case in CASES for proxy, value in values.items()]
    cells += [_cell(ONE_SHARD.name, "postern", 1, 100.0), _cell(TWO_SHARDS.name, POSTERN_TWO_SHARDS, 1, 110.0)]
    return Results(cells)


if __name__ == "__main__":
    unittest.main()

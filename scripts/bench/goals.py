"""What Postern has to reach, in one table, and the verdict on a run."""

from collections.abc import Callable
from dataclasses import dataclass

from .cases import IDLE, ONE_SHARD, POSTERN_TWO_SHARDS, TLS_IDLE, TWO_SHARDS, IdleCase
from .results import Results


@dataclass(frozen=True)
class Goal:
    """`measure` must be at most `limit`. It answers None when the run lacks what it needs."""

    what: str
    limit: float
    measure: Callable[[Results], float | None]
    spread: Callable[[Results], tuple[float, float] | None] = lambda _: None
    """The quartiles around the value, where there are any. They are shown, and decide nothing."""


@dataclass(frozen=True)
class Verdict:
    """A goal and the value that a run reached. Missing values miss."""

    goal: Goal
    value: float | None
    spread: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether the goal is reached."""
        return self.value is not None and self.value <= self.goal.limit


def _ratio(case: str, what: str, metric: str, limit: float) -> Goal:
    return Goal(f"{case}: {what}, ratio", limit, lambda results: results.ratio(case, "postern", metric),
                lambda results: results.ratio_quartiles(case, "postern", metric))


def _per_connection(case: IdleCase, limit: float) -> Goal:
    return Goal(f"{case.name}: KiB per connection", limit,
                lambda results: results.median(case.name, "postern", "kib_per_connection"))


def _errors(results: Results) -> float | None:
    counts = [cell.metrics["errors"] for cell in results.cells
              if cell.proxy.startswith("postern") and "errors" in cell.metrics]
    return sum(counts) if counts else None


def _two_shards_to_one(results: Results) -> float | None:
    one = results.median(ONE_SHARD.name, "postern", "cpu_us")
    two = results.median(TWO_SHARDS.name, POSTERN_TWO_SHARDS, "cpu_us")
    return two / one if one and two else None


_CPU = ("CPU per request", "cpu_us")

GOALS = (
    _ratio("c64", *_CPU, 0.80),
    _ratio("c1", *_CPU, 0.85),
    _ratio("c1", "p50", "p50_us", 1.00),
    _ratio("rate8k", *_CPU, 1.00),
    _ratio("rate8k", "p99", "p99_us", 1.00),
    _ratio("large", *_CPU, 1.00),
    _ratio("newconn", *_CPU, 1.00),
    _ratio("tls", *_CPU, 0.90),
    _ratio("mtls", *_CPU, 0.90),
    _ratio("handshake", "CPU per handshake", "cpu_us", 1.00),
    _ratio("h2", *_CPU, 0.95),
    _ratio("grpc", *_CPU, 0.60),
    Goal("errors in all cases", 0, _errors),
    _per_connection(IDLE, 1.00),
    _per_connection(TLS_IDLE, 15.00),
    Goal("shards: CPU per request, two to one", 1.10, _two_shards_to_one),
)
"""Ratios are to the best of the case's references in the same run."""


def judge(results: Results) -> list[Verdict]:
    """The verdict on each goal, in the table's order."""
    return [Verdict(goal, goal.measure(results), goal.spread(results)) for goal in GOALS]

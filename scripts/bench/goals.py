"""What Postern has to reach, in one table, and the verdict on a run."""

from collections.abc import Callable
from dataclasses import dataclass

from .cases import ONE_SHARD, POSTERN_TWO_SHARDS, TWO_SHARDS
from .results import IDLE, Results


@dataclass(frozen=True)
class Goal:
    """`measure` must be at most `limit`. It answers None when the run lacks what it needs."""

    what: str
    limit: float
    measure: Callable[[Results], float | None]


@dataclass(frozen=True)
class Verdict:
    """A goal and the value that a run reached. Missing values miss."""

    goal: Goal
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the goal is reached."""
        return self.value is not None and self.value <= self.goal.limit


def _ratio(case: str, metric: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio(case, "postern", metric)


def _errors(results: Results) -> float | None:
    postern = [cell for cell in results.cells if cell.proxy.startswith("postern") and cell.case != IDLE]
    return sum(cell.metrics["errors"] for cell in postern) if postern else None


def _two_shards_to_one(results: Results) -> float | None:
    one = results.median(ONE_SHARD.name, "postern", "cpu_us")
    two = results.median(TWO_SHARDS.name, POSTERN_TWO_SHARDS, "cpu_us")
    return two / one if one and two else None


GOALS = (
    Goal("c64: CPU per request, ratio", 0.80, _ratio("c64", "cpu_us")),
    Goal("c1: CPU per request, ratio", 0.85, _ratio("c1", "cpu_us")),
    Goal("c1: p50, ratio", 1.00, _ratio("c1", "p50_us")),
    Goal("rate8k: CPU per request, ratio", 1.00, _ratio("rate8k", "cpu_us")),
    Goal("rate8k: p99, ratio", 1.00, _ratio("rate8k", "p99_us")),
    Goal("large: CPU per request, ratio", 1.00, _ratio("large", "cpu_us")),
    Goal("newconn: CPU per request, ratio", 1.00, _ratio("newconn", "cpu_us")),
    Goal("errors in all cases", 0, _errors),
    Goal("idle: KiB per connection", 1.00, lambda results: results.median(IDLE, "postern", "kib_per_connection")),
    Goal("shards: CPU per request, two to one", 1.10, _two_shards_to_one),
)
"""Ratios are to the better of nginx and HAProxy in the same run."""


def judge(results: Results) -> list[Verdict]:
    """The verdict on each goal, in the table's order."""
    return [Verdict(goal, goal.measure(results)) for goal in GOALS]

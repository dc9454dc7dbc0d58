"""Whether a process's memory grows without end: a judgement on samples."""

from dataclasses import dataclass
from statistics import median

WARM_UP_SECONDS = 60
"""Buffers, pools and the allocator take what they need in the first minute; what comes after it is judged."""

FEWEST_SAMPLES = 60
"""Fewer say nothing about a trend."""

TOLERATED_SHARE = 0.02
TOLERATED_KIB = 1024
"""The last fifth may lie above the second by both together. Memory that is ever touched stays, so a rare coincidence of
many busy connections raises it for good, by a little."""


@dataclass(frozen=True)
class Sample:
    """Memory at a time."""

    seconds: float
    """Since the load began."""
    rss_kib: int
    pss_kib: int


@dataclass(frozen=True)
class Trend:
    """Medians of the second and of the last fifth of the samples."""

    what: str
    before_kib: float
    after_kib: float

    @property
    def grows(self) -> bool:
        """Whether the difference is more than is tolerated."""
        return self.after_kib > self.before_kib * (1 + TOLERATED_SHARE) + TOLERATED_KIB


def trends(samples: list[Sample]) -> list[Trend]:
    """The trends of RSS and PSS; none when the samples are too few."""
    judged = [sample for sample in samples if sample.seconds >= WARM_UP_SECONDS]
    if len(judged) < FEWEST_SAMPLES:
        return []
    fifth = len(judged) // 5
    second, last = judged[fifth:2 * fifth], judged[-fifth:]
    return [
        Trend("RSS", median(it.rss_kib for it in second), median(it.rss_kib for it in last)),
        Trend("PSS", median(it.pss_kib for it in second), median(it.pss_kib for it in last)),
    ]

"""What a run yields: cells, their medians, and the ratios between them."""

import statistics
from dataclasses import dataclass, field

REFERENCES = ("nginx", "haproxy")
"""Postern is measured against the better of these, metric by metric."""

DISTURBED = 0.1
"""A cell is suspect when other programs took more than this share of a core from the two that it was measured on."""

IDLE = "idle"
"""Takes the place of a case's name for the memory of idle connections."""


@dataclass
class Cell:
    """One measured interval of one proxy under one case."""

    case: str
    proxy: str
    round: int
    metrics: dict[str, float]
    invalid: list[str] = field(default_factory=list)
    """Why the figures mean nothing, if they do."""

    @property
    def disturbed(self) -> bool:
        """Whether other programs had a part in the figures."""
        return self.metrics.get("others_share", 0) > DISTURBED


@dataclass
class Results:
    """All cells of a run, in the order in which they were measured."""

    cells: list[Cell] = field(default_factory=list)

    def values(self, case: str, proxy: str, metric: str) -> list[float]:
        """One value per round. Empty when the proxy did not run the case."""
        return [cell.metrics[metric] for cell in self.cells
                if cell.case == case and cell.proxy == proxy and metric in cell.metrics]

    def median(self, case: str, proxy: str, metric: str) -> float | None:
        """The median of the rounds."""
        values = self.values(case, proxy, metric)
        return statistics.median(values) if values else None

    def total(self, case: str, proxy: str, metric: str) -> float:
        """The sum over the rounds."""
        return sum(self.values(case, proxy, metric))

    def reference(self, case: str, metric: str) -> float | None:
        """The better (lower) median of the reference proxies. None unless all of them ran."""
        medians = [self.median(case, proxy, metric) for proxy in REFERENCES]
        known = [median for median in medians if median is not None]
        return min(known) if len(known) == len(REFERENCES) else None

    def ratio(self, case: str, proxy: str, metric: str) -> float | None:
        """The median over that of the reference."""
        value, reference = self.median(case, proxy, metric), self.reference(case, metric)
        return value / reference if value is not None and reference else None

    def disturbed(self) -> list[Cell]:
        """The cells that other programs had a part in."""
        return [cell for cell in self.cells if cell.disturbed]

    def invalid(self) -> list[Cell]:
        """The cells whose figures mean nothing."""
        return [cell for cell in self.cells if cell.invalid]

"""What a run yields: cells, their medians, and the ratios between them."""

import statistics
from dataclasses import dataclass, field

from .cases import REFERENCES

DISTURBED = 0.1
"""A cell is suspect when other programs took more than this share of a core from the two that it was measured on."""

@dataclass
class Cell:
    """One measured interval of one proxy under one case."""

    case: str
    proxy: str
    number: int
    """Counts the case's measurements, from 1: of those with the same number each proxy has one, and they were made one
    after the other."""
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
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a case was not measured on a proxy that should have taken part, by the names of both."""

    def values(self, case: str, proxy: str, metric: str) -> list[float]:
        """One per measurement. Empty when the proxy did not run the case."""
        return [cell.metrics[metric] for cell in self.cells
                if cell.case == case and cell.proxy == proxy and metric in cell.metrics]

    def median(self, case: str, proxy: str, metric: str) -> float | None:
        """The median of the measurements."""
        values = self.values(case, proxy, metric)
        return statistics.median(values) if values else None

    def total(self, case: str, proxy: str, metric: str) -> float:
        """The sum of the measurements."""
        return sum(self.values(case, proxy, metric))

    def reference(self, case: str, metric: str) -> str | None:
        """The proxy that Postern is measured against: the one with the best (lowest) median of the case's references.
        None unless all of these ran."""
        medians = {proxy: self.median(case, proxy, metric) for proxy in REFERENCES[case]}
        known = {proxy: median for proxy, median in medians.items() if median is not None}
        return min(known, key=lambda proxy: known[proxy]) if known and len(known) == len(medians) else None

    def ratio(self, case: str, proxy: str, metric: str) -> float | None:
        """The median over that of the reference."""
        reference = self.reference(case, metric)
        value, best = self.median(case, proxy, metric), reference and self.median(case, reference, metric)
        return value / best if value is not None and best else None

    def ratio_quartiles(self, case: str, proxy: str, metric: str) -> tuple[float, float] | None:
        """How far the ratio can be trusted: each measurement over the reference's that was made next to it, and of
        these ratios the lower and the upper quartile. None with fewer than three."""
        reference = self.reference(case, metric)
        mine, best = (self._by_number(case, name, metric) for name in (proxy, reference))
        ratios = [mine[number] / best[number] for number in mine.keys() & best.keys() if best[number]]
        if len(ratios) < 3:
            return None
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower, upper

    def _by_number(self, case: str, proxy: str | None, metric: str) -> dict[int, float]:
        return {cell.number: cell.metrics[metric] for cell in self.cells
                if cell.case == case and cell.proxy == proxy and metric in cell.metrics}

    def disturbed(self) -> list[Cell]:
        """The cells that other programs had a part in."""
        return [cell for cell in self.cells if cell.disturbed]

    def invalid(self) -> list[Cell]:
        """The cells whose figures mean nothing."""
        return [cell for cell in self.cells if cell.invalid]

"""One cell: a warm-up, then a measured interval with the counters read before and after."""

import time
from dataclasses import dataclass

from . import load, procstat
from .cases import Case
from .processes import Arrivals, Origin, Server
from .results import Cell
from .settings import LOAD_CPU, PROXY_CPU

SETTLE_SECONDS = 0.1
"""Long enough for requests in flight, when a load generator hangs up, to arrive and be counted."""


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    proxy: procstat.Usage
    arrivals: Arrivals
    others_seconds: float
    """CPU time on the two cores that went to none of proxy, origin and load generator."""


def measure(case: Case, proxy: Server, origin: Origin, number: int, seconds: float, warm_up: float) -> Cell:
    """Measures `proxy` under `case`. `number` counts the case's measurements."""
    load.apply(case, proxy.port, warm_up)
    procstat.reset_peak_rss(proxy.pid)
    before = _read(proxy, origin)
    result = load.apply(case, proxy.port, seconds)
    after = _read(proxy, origin)

    arrived = Arrivals(after.arrivals.connections - before.arrivals.connections,
                       after.arrivals.requests - before.arrivals.requests)
    metrics = _client_metrics(result) | _proxy_metrics(result, after.proxy - before.proxy)
    metrics["others_share"] = max(after.others_seconds - before.others_seconds, 0) / result.seconds
    metrics["peak_rss_kib"] = procstat.peak_rss_kib(proxy.pid)
    metrics["forwarded"] = arrived.requests
    metrics["upstream_connections"] = arrived.connections
    return Cell(case.name, proxy.name, number, metrics, complaints(case, result.requests, arrived))


def complaints(case: Case, completed: int, arrived: Arrivals) -> list[str]:
    """Why a cell does not measure a proxy that forwards and reuses connections; empty if it does."""
    found = []
    if completed == 0:
        found.append("no request was answered")
    # At the end a load generator hangs up on what is in flight.
    if not completed <= arrived.requests <= completed + case.requests_in_flight:
        found.append(f"clients got {completed} responses, but the origin answered {arrived.requests} requests")
    if arrived.connections > case.upstream_connections_max:
        found.append(f"{arrived.connections} upstream connections were opened, where reuse needs "
                     f"{case.upstream_connections_max} at most")
    return found


def _read(proxy: Server, origin: Origin) -> Reading:
    time.sleep(SETTLE_SECONDS)
    usage = procstat.usage(proxy.pid)
    ours = usage.cpu_ns / 1e9 + sum(procstat.usage(pid).cpu_ns for pid in origin.pids) / 1e9
    ours += procstat.load_generator_seconds()
    others = procstat.cpu_busy_seconds([PROXY_CPU, LOAD_CPU]) - ours
    return Reading(usage, origin.arrivals(), others)


def _client_metrics(result: load.LoadResult) -> dict[str, float]:
    latencies = {"p50_us": result.p50_us, "p99_us": result.p99_us, "max_us": result.max_us}
    return {
        "requests": result.requests,
        "seconds": result.seconds,
        "requests_per_second": result.requests / result.seconds,
        "errors": result.status_errors + result.socket_errors,
    } | {name: value for name, value in latencies.items() if value is not None}


def _proxy_metrics(result: load.LoadResult, usage: procstat.Usage) -> dict[str, float]:
    requests = max(result.requests, 1)
    cpu_us = usage.cpu_ns / 1000 / requests
    # Ticks are too coarse to be a measure, but good enough to divide one.
    user_share = usage.user_ticks / max(usage.user_ticks + usage.system_ticks, 1)
    return {
        "cpu_us": cpu_us,
        "user_us": cpu_us * user_share,
        "system_us": cpu_us * (1 - user_share),
        "cpu_share": usage.cpu_ns / 1e9 / result.seconds,
        "voluntary_switches": usage.voluntary_switches / requests,
        "involuntary_switches": usage.involuntary_switches / requests,
    }

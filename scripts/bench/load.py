"""The load generators: wrk and h2load for as fast as possible, paced (paced.c) for a fixed rate."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from math import ceil

from . import certificates
from .cases import UNARY, Case, Protocol
from .settings import BENCH, LOAD_CPU, MESSAGE, OUTPUT, WRK_FULL, pinned

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True)
class LoadResult:
    """What the clients saw. `requests` are those answered, whatever the status. The latencies are None where the load
    generator knows no quantiles."""

    requests: int
    seconds: float
    status_errors: int
    socket_errors: int
    p50_us: float | None = None
    p99_us: float | None = None
    max_us: float | None = None


def apply(case: Case, port: int, seconds: float) -> LoadResult:
    """Loads the proxy on `port` for `seconds`, from the load generator's own CPU."""
    command = command_for(case, port, seconds)
    done = subprocess.run(pinned([LOAD_CPU]) + command, capture_output=True, text=True, timeout=seconds + 60,
                          env=os.environ | {"OPENSSL_CONF": str(certificates.CLIENT_SETTINGS)}, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load of {case.name} failed: {done.stderr.strip() or done.stdout.strip()}")
    if command[0] == "h2load":
        return read_h2load(done.stdout)
    return LoadResult(**json.loads(done.stdout.strip().splitlines()[-1]))


def command_for(case: Case, port: int, seconds: float) -> list[str]:
    """The load generator and its arguments."""
    if case.rate is not None:
        return [str(OUTPUT / "paced"), str(port), case.path, str(case.connections), str(case.rate), str(seconds)]
    if case.setup.front is Protocol.H2C:
        return _h2load(case, port, seconds)
    return _wrk(case, port, seconds)


def _wrk(case: Case, port: int, seconds: float) -> list[str]:
    command: list[str] = []
    if seconds != round(seconds):
        # wrk takes whole seconds only, but ends in good order when it is interrupted. Not when that happens before it
        # is prepared for it: hence it begins with the signal ignored, and runs for a whole second if it was that slow.
        command += ["timeout", "--preserve-status", "--signal=INT", str(seconds), "env", "--ignore-signal=INT"]
    secure = case.setup.front is Protocol.TLS
    if secure and not case.client_keeps_alive:
        command += ["env", f"LD_PRELOAD={WRK_FULL}"]
    command += ["wrk", "--threads", "1", "--connections", str(case.connections), "--duration", f"{ceil(seconds)}s",
                "--script", str(BENCH / "wrk.lua")]
    if not case.client_keeps_alive:
        command += ["--header", "Connection: close"]
    scheme = "https" if secure else "http"
    return [*command, f"{scheme}://127.0.0.1:{port}{case.path}"]


def _h2load(case: Case, port: int, seconds: float) -> list[str]:
    command = ["h2load", "--threads=1", f"--clients={case.connections}", f"--max-concurrent-streams={case.streams}",
               f"--duration={round(1000 * seconds)}ms"]
    if case.path == UNARY:
        command += [f"--data={MESSAGE}", *(f"--header={header}" for header in GRPC_HEADERS)]
    return [*command, f"http://127.0.0.1:{port}{case.path}"]


def read_h2load(text: str) -> LoadResult:
    """The figures that are exact in h2load's report. Its latencies are a mean and extremes."""
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", text)
    requests = re.search(r"(\d+) succeeded, \d+ failed, (\d+) errored, (\d+) timeout", text)
    statuses = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not (finished and requests and statuses):
        raise RuntimeError(f"h2load's report is not as expected: {text}")
    # A response with a status of 400 and up does not succeed, but it is one.
    succeeded, errored, timed_out = map(int, requests.groups())
    redirected, wrong, failed = map(int, statuses.groups())
    return LoadResult(
        requests=succeeded + wrong + failed,
        seconds=float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[finished[2]],
        status_errors=redirected + wrong + failed,
        socket_errors=errored + timed_out,
    )

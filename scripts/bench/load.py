"""The two load generators: wrk for as fast as possible, paced (paced.c) for a fixed rate."""

import json
import subprocess
from dataclasses import dataclass

from .cases import Case
from .settings import BENCH, LOAD_CPU, OUTPUT, pinned


@dataclass(frozen=True)
class LoadResult:
    """What the clients saw. `requests` are those answered, whatever the status."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    status_errors: int
    socket_errors: int


def apply(case: Case, port: int, seconds: float) -> LoadResult:
    """Loads the proxy on `port` for `seconds`, from the load generator's own CPU."""
    command = _wrk(case, port, seconds) if case.rate is None else _paced(case, port, seconds)
    done = subprocess.run(
        pinned([LOAD_CPU]) + command, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return LoadResult(**json.loads(done.stdout.strip().splitlines()[-1]))


def _wrk(case: Case, port: int, seconds: float) -> list[str]:
    # wrk takes whole seconds only.
    command = ["wrk", "--threads", "1", "--connections", str(case.connections), "--duration", f"{round(seconds)}s",
               "--script", str(BENCH / "wrk.lua")]
    if not case.client_keeps_alive:
        command += ["--header", "Connection: close"]
    return [*command, f"http://127.0.0.1:{port}{case.path}"]


def _paced(case: Case, port: int, seconds: float) -> list[str]:
    return [str(OUTPUT / "paced"), str(port), case.path, str(case.connections), str(case.rate), str(seconds)]

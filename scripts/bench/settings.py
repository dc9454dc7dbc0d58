"""Where things are, and what every other file takes as given."""

import os
import resource
from pathlib import Path

BENCH = Path(__file__).resolve().parent
REPOSITORY = BENCH.parent.parent
OUTPUT = REPOSITORY / "target" / "bench"
"""Reports, and everything that is built for a run. Never committed."""

WORK = OUTPUT / "work"
"""Configurations, logs and files served during a run."""

PROXY_CPU = 0
"""The proxies run here, one worker each."""

LOAD_CPU = 1
"""The load generator, the origin and this program run here."""

POSTERN = REPOSITORY / "target" / "release" / "postern"
"""What `cargo build --release` makes; measured unless the command line names another binary."""

SMALL_BODY = "x" * 128
LARGE_BODY = 64 * 1024
"""Bytes of the large response."""

GRPC_MESSAGE = b"\0" + (123).to_bytes(4) + b"x" * 123
"""Request and response of the unary call: not compressed, a length, and so many bytes."""

MESSAGE = WORK / "message.bin"
"""The file with it."""

H1ORIGIN = OUTPUT / "h1origin"
"""The origin for HTTP/1.1."""

H2ORIGIN = OUTPUT / "h2origin"
"""The origin for HTTP/2."""

WRK_FULL = OUTPUT / "wrk_full.so"
"""What keeps wrk from resuming TLS sessions."""

FIRST_PORT = 18100
"""Below the range from which the kernel takes the ports of outgoing connections (32768 and up)."""

IDLE_SECONDS = 600
"""How long the proxies and the origin keep idle connections: longer than any pause of a run."""

HEADROOM = 500
"""File descriptors that a proxy or this program may need besides its clients' connections."""


def raise_descriptor_limit() -> int:
    """Raises the limit of open files as far as this user may, for this process and all that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65536, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def pinned(cpus: list[int]) -> list[str]:
    """The words before a command that pin it to `cpus`."""
    return ["taskset", "-c", ",".join(str(cpu) for cpu in cpus)]


def is_root() -> bool:
    """Whether this program may do what only root may."""
    return os.geteuid() == 0

"""What a report has to say about where its figures come from."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from . import prepare
from .settings import REPOSITORY

TITLES = {"nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "h2o": "h2o", "postern": "Postern"}
"""How the proxies are called in print."""

_TOOLS = ("wrk", "h2load", "OpenSSL")

_VERSION_COMMANDS = {
    "nginx": ["nginx", "-v"],
    "haproxy": ["haproxy", "-v"],
    "envoy": [str(prepare.ENVOY), "--version"],
    "h2o": ["h2o", "-v"],
    "wrk": ["wrk", "-v"],
    "h2load": ["h2load", "--version"],
    "OpenSSL": ["openssl", "version"],
}


def describe(proxies: list[str], binary: Path) -> dict[str, str]:
    """Machine, versions, date and commit, by the names under which the report shows them."""
    commands = {**_VERSION_COMMANDS, "postern": [str(binary), "--version"]}
    versions = [f"{TITLES.get(name, name)} {_version(commands[name])}" for name in [*proxies, *_TOOLS]]
    model = _first(r"model name\s*:\s*(.*)", "/proc/cpuinfo")
    memory_kib = int(_first(r"MemTotal:\s+(\d+)", "/proc/meminfo"))
    return {
        "CPU": f"{model}, {os.cpu_count()} cores",
        "Memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Versions": ", ".join(versions),
        "Postern's binary": os.path.relpath(binary, REPOSITORY),
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": _commit(),
    }


def _first(pattern: str, file: str) -> str:
    found = re.search(pattern, Path(file).read_text())
    return found.group(1) if found else "unknown"


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found.group(0) if found else "of unknown version"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + (" with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else "")

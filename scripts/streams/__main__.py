"""The command line: one large body after the other, up and down, through every pairing of protocols, for a fast and for a
slow peer; each has to arrive as it was sent, and the gateway must not grow by more than a few receive buffers."""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .origin import BEHIND, PIECE, Sink, nginx, wait_for

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WORK = REPOSITORY / "target" / "streams"
RELEASE = REPOSITORY / "target" / "release" / "postern"

IN_FRONT = {"h1": "--http1.1", "h1-tls": "--http1.1", "h2": "--http2-prior-knowledge", "h2-tls": "--http2"}
"""The protocols in front of the gateway, and how curl is told."""

GROWTH_MIB = 4.0
SLOW_MIB_PER_SECOND = 128
WARM_UP_MIB = 1
"""What a pairing needs once (code, buffers, sessions) is not what a large body costs."""


@dataclass(frozen=True)
class Transfer:
    """One body."""

    front: str
    behind: str
    upload: bool
    slow: bool

    def __str__(self) -> str:
        arrow = "->" if self.upload else "<-"
        return f"{self.front:>6} {arrow} {self.behind:<6} {'slow' if self.slow else 'fast'}"


class Run:
    """The gateway and what is around it."""

    def __init__(self, binary: Path, mib: int, fronts: list[str], behinds: list[str]) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        self._digests = {size: self._file(size) for size in {mib, WARM_UP_MIB}}
        self._mib = mib
        _certificate()
        ports = _free_ports(len(behinds) + len(fronts))
        behind = dict(zip(behinds, ports))
        self._ports = dict(zip(fronts, ports[len(behinds):]))
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._processes.append(nginx(WORK, Sink(), behind))
            self._processes.append(self._start(binary, behind))
            for port in [*behind.values(), *self._ports.values()]:
                wait_for(port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything."""
        for process in self._processes:
            process.terminate()
            process.wait()

    @staticmethod
    def _file(mib: int) -> str:
        """Makes a file of random bytes, and says what its digest is."""
        file, digest = WORK / f"{mib}", hashlib.sha256()
        with file.open("wb") as out:
            for _ in range(mib):
                piece = os.urandom(PIECE)
                digest.update(piece)
                out.write(piece)
        return digest.hexdigest()

    def _start(self, binary: Path, behind: dict[str, int]) -> subprocess.Popen[bytes]:
        tls = {"certificates": [{"chain": "certificate.pem", "key": "key.pem"}]}
        limits = {"max_body": 1 << 40}
        listeners = [
            {"name": name, "address": f"127.0.0.1:{port}", "limits": limits} | _front_keys(name, tls)
            for name, port in self._ports.items()
        ]
        upstreams = {name: _upstream(name, port) for name, port in behind.items()}
        routes = [{"match": {"path": f"/{name}/{{*rest}}"}, "upstream": name, "rewrite": {"path": "/{rest}"}, "timeout": "10m"}
                  for name in behind]
        file = WORK / "gateway.json"
        file.write_text(json.dumps(
            {"shards": 1, "listeners": listeners, "upstreams": upstreams, "routes": routes}, indent=2))
        return subprocess.Popen([binary, "run", file], stderr=(WORK / "gateway.log").open("wb"))

    def carry(self, transfer: Transfer) -> tuple[bool, float]:
        """Whether the body came as it was sent, and by how many MiB the gateway grew."""
        self._curl(transfer, WARM_UP_MIB)
        process = Path("/proc") / str(self._processes[-1].pid)
        before = _status(process, "VmRSS")
        # The peak begins anew.
        (process / "clear_refs").write_text("5")
        whole = self._curl(transfer, self._mib) == self._digests[self._mib]
        return whole, (_status(process, "VmHWM") - before) / 1024

    def _curl(self, transfer: Transfer, mib: int) -> str:
        scheme = "https" if transfer.front.endswith("tls") else "http"
        url = f"{scheme}://127.0.0.1:{self._ports[transfer.front]}/{transfer.behind}"
        command = ["curl", "-sSk", "--fail", IN_FRONT[transfer.front], "--max-time", "600"]
        if transfer.slow:
            command += ["--limit-rate", f"{SLOW_MIB_PER_SECOND}M"]
        if transfer.upload:
            done = subprocess.run([*command, "-T", WORK / f"{mib}", f"{url}/upload"], stdout=subprocess.PIPE, text=True)
            return done.stdout
        digest = hashlib.sha256()
        with subprocess.Popen([*command, f"{url}/{mib}"], stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            while piece := client.stdout.read1(PIECE):
                digest.update(piece)
        return digest.hexdigest()


def _front_keys(name: str, tls: object) -> dict[str, object]:
    keys: dict[str, object] = {"tls": tls} if name.endswith("tls") else {}
    return keys | ({"http2": True} if name.startswith("h2") else {})


def _upstream(name: str, port: int) -> dict[str, object]:
    scheme = "https" if name.endswith("tls") else "http"
    upstream: dict[str, object] = {"endpoints": [f"{scheme}://127.0.0.1:{port}"]}
    if name.endswith("tls"):
        upstream["tls"] = {"ca": "certificate.pem"}
    if name.startswith("h2"):
        upstream["protocol"] = "h2"
    return upstream


def _status(process: Path, field: str) -> int:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def _certificate() -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
         "-keyout", WORK / "key.pem", "-out", WORK / "certificate.pem"],
        check=True, stderr=subprocess.DEVNULL)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main() -> int:
    """Runs, and says what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/streams.sh", description=__doc__)
    parser.add_argument("--binary", type=Path, metavar="PATH", help="what to run; default: a release build of this tree")
    parser.add_argument("--mib", type=int, default=1024, help="size of a body; default: 1024")
    parser.add_argument("--front", nargs="+", choices=IN_FRONT, default=list(IN_FRONT), help="default: all")
    parser.add_argument("--behind", nargs="+", choices=BEHIND, default=list(BEHIND), help="default: all")
    arguments = parser.parse_args()
    if arguments.binary is None:
        subprocess.run(["cargo", "build", "--release"], cwd=REPOSITORY, check=True)
    run, failures = Run((arguments.binary or RELEASE).resolve(), arguments.mib, arguments.front, arguments.behind), 0
    try:
        for front in arguments.front:
            for behind in arguments.behind:
                for upload in (False, True):
                    for slow in (False, True):
                        transfer = Transfer(front, behind, upload, slow)
                        whole, growth = run.carry(transfer)
                        good = whole and growth <= GROWTH_MIB
                        failures += not good
                        print(f"{transfer}  {'whole' if whole else 'NOT WHOLE'}  {growth:+6.2f} MiB  "
                              f"{'ok' if good else 'FAILED'}", flush=True)
    finally:
        run.stop()
    print(f"{failures} failed" if failures else "all good")
    return 1 if failures else 0


sys.exit(main())

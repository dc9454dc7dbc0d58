"""What the kernel counts for a process and all that it started: CPU time, context switches, memory."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Totals since the processes started, over all their threads."""

    cpu_ns: int
    user_ticks: int
    system_ticks: int
    voluntary_switches: int
    involuntary_switches: int

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.cpu_ns - earlier.cpu_ns,
            self.user_ticks - earlier.user_ticks,
            self.system_ticks - earlier.system_ticks,
            self.voluntary_switches - earlier.voluntary_switches,
            self.involuntary_switches - earlier.involuntary_switches,
        )


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    tree = [pid]
    for parent in tree:
        for task in Path(f"/proc/{parent}/task").iterdir():
            tree.extend(int(child) for child in (task / "children").read_text().split())
    return tree


def usage(pid: int) -> Usage:
    """What `pid` and its descendants have used."""
    cpu_ns = user = system = voluntary = involuntary = 0
    for process in process_tree(pid):
        cpu_ns += _cpu_ns(process)
        # The name may hold spaces and brackets; the fields after its last bracket are fixed.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
        for task in Path(f"/proc/{process}/task").iterdir():
            status = _fields(task / "status")
            voluntary += int(status["voluntary_ctxt_switches"])
            involuntary += int(status["nonvoluntary_ctxt_switches"])
    return Usage(cpu_ns, user, system, voluntary, involuntary)


def reset_peak_rss(pid: int) -> None:
    """Makes the present the peak, so that the next one belongs to what runs next."""
    for process in process_tree(pid):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def peak_rss_kib(pid: int) -> int:
    """The sum of the processes' peaks since the last reset, in KiB."""
    return sum(int(_fields(Path(f"/proc/{process}/status"))["VmHWM"].split()[0]) for process in process_tree(pid))


def pss_kib(pid: int) -> int:
    """Proportional set size in KiB: pages shared by several processes count once."""
    return sum(int(_fields(Path(f"/proc/{process}/smaps_rollup"))["Pss"].split()[0]) for process in process_tree(pid))


def cpu_busy_seconds(cpus: list[int]) -> float:
    """What `cpus` spent on anything at all: user, nice, system, interrupts, and time stolen by the host."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in (f"cpu{cpu}" for cpu in cpus):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / _TICKS_PER_SECOND


def load_generator_seconds() -> float:
    """CPU time of this process and of its children that have ended: the load generators."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu_ns(pid: int) -> int:
    """The process's own CPU clock: the scheduler's run time in nanoseconds, the figure that
    /proc/PID/task/*/schedstat shows, with the threads that have already ended."""
    process_clock = (~pid << 3) | 2
    return time.clock_gettime_ns(process_clock)


def _fields(path: Path) -> dict[str, str]:
    """A file of `name: value` lines."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}

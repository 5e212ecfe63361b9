"""How many threads to compute with, on a machine that others may be using.

PyTorch takes a thread for each core. Where other programs keep cores busy, its threads wait for one another
at every layer, and two on two busy cores take several times as long as one. So the command line looks, while
the libraries are loaded, how much of the machine is idle, and takes as many threads as that.
`OMP_NUM_THREADS` is obeyed where it is set.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_STAT = Path("/proc/stat")
_LEAST = 0.2  # seconds of observation, less of which says nothing


class _Snapshot(NamedTuple):
    """Seconds of all cores together since the computer was started, but `wall`."""

    busy: float
    own: float
    wall: float


def _snapshot() -> _Snapshot | None:
    try:
        user, nice, system, idle, waiting, *more = (
            int(ticks) for ticks in _STAT.read_text().split("\n", 1)[0].split()[1:]
        )
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):  # another system
        return None
    busy = (user + nice + system + sum(more[:3])) / tick
    return _Snapshot(busy, time.process_time(), time.monotonic())


_AT_START = _snapshot()  # when the command line was loaded, before PyTorch


def allowed() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:  # a container's share
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def free() -> int:
    """How many of the allowed cores other programs left idle since the command line was loaded, 1 at least.

    Where that cannot be told, all that are allowed. Several processes that were launched together share them.
    """
    now, cores = _snapshot(), allowed()
    if now is not None and _AT_START is not None and now.wall - _AT_START.wall >= _LEAST:
        by_others = (now.busy - _AT_START.busy) - (now.own - _AT_START.own)
        idle = (os.cpu_count() or cores) - by_others / (now.wall - _AT_START.wall)
        cores = min(cores, int(idle + 0.5))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def choose() -> int:
    """Have PyTorch compute with as many threads as cores are free, and return their number."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(free())
    return torch.get_num_threads()

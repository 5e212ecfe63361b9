"""What the benchmarks share: one JSON record a run, shared out among processes, on photographs of DRIVE."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from scipy.stats import t as student

from drive_unet.data import DRIVEDataset
from drive_unet.data.find import EMBEDDED, find_drive
from drive_unet.errors import DataError
from drive_unet.files import write_atomically
from drive_unet.training.provenance import versions

RUNS = Path(__file__).parent / "runs"
WAYS = {"one pass": False, "four flips": True}  # how a network is read, and whether flips are averaged


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the options that the benchmarks share; its number of threads is set."""
    parser.add_argument("--data", help="a copy of DRIVE; by default $DRIVE_UNET_DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, help="CPU threads of this process; all by default")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def once(target: Path, work: Callable[[], dict]) -> dict | None:
    """Do a run whose record is not there yet; returns the record, or None while another process does it.

    A claim names its process and ends with it, so that a benchmark that was stopped can be started again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        return json.loads(target.read_text())
    claim = target.with_suffix(".claim")
    me = f"{socket.gethostname()} {os.getpid()}"
    try:
        with claim.open("x") as file:
            file.write(me)
    except FileExistsError:
        host, _, process = claim.read_text().partition(" ")
        if host != socket.gethostname() or (process.isdigit() and Path(f"/proc/{process}").exists()):
            return None
        claim.write_text(me)
    record = work() | {"hardware": hardware(), "versions": versions()}
    write_atomically(target, lambda file: file.write(json.dumps(record, indent=1).encode()))
    claim.unlink()
    return record


def labelled(root: str | None) -> DRIVEDataset:
    """The labelled training photographs of a copy of DRIVE: all that a benchmark may look at.

    Raises:
        DataError: if no copy is found; painted photographs have to be asked for by name.
    """
    copy = find_drive(root)
    if copy.kind == EMBEDDED and root != EMBEDDED:
        raise DataError("these scores are for genuine photographs: name a copy of DRIVE with --data")
    return DRIVEDataset.from_pairs(copy.training)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation, as ".8162 ± .0011"; the mean alone where there is one value."""
    text = f"{mean(values):.{digits}f}".lstrip("0")
    return text if len(values) < 2 else f"{text} ± {stdev(values):.{digits}f}".replace("± 0", "± ")


def interval(values: Sequence[float], digits: int = 4, *, sign: bool = False) -> str:
    """Mean and half of its 95 % interval by Student's t, as ".8162 ± .0011"; the mean alone of one value.

    "none" where a value is not a number: where nothing is called vessel there is no MCC.
    """
    if not all(map(math.isfinite, values)):
        return "none"
    text = re.sub(r"^([+-]?)0\.", r"\1.", f"{mean(values):{'+' if sign else ''}.{digits}f}")
    if len(values) < 2:
        return text
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return f"{text} ± {half:.{digits}f}".replace("± 0", "± ")


def hardware() -> str:
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} thread(s) of {os.cpu_count()} {platform.machine()} cores"

"""Execute the notebooks and write their outputs back, figures included, always on the embedded data.

`python scripts/refresh_notebooks.py` runs all of them, `... 03 05` two. A notebook is left as it was if
neither its code nor packaged weights that it names changed since the last run, and all new outputs say the
same (measured numbers and durations masked as in the tests, figures within a few grey levels). Otherwise, and
with `--fresh`, every new output is taken: text and figures of one notebook come from one run. A notebook that
fails or writes to stderr is left as it was, too. `--check` runs nothing and names notebooks whose cells or
weights changed since.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import coalesce_streams, get_sanitize_patterns
from PIL import Image
from rewrite_addresses import NOTEBOOKS, ROOT

SANITISER = ROOT / "tests" / "notebook_outputs.cfg"
WEIGHTS = sorted((ROOT / "drive_unet" / "weights").glob("*.safetensors"))
WIDGET = "application/vnd.jupyter.widget-view+json"
SAME_PICTURE = 8  # of 255 levels: the same figure drawn and compressed by other releases of the libraries


def digest(notebook: nbformat.NotebookNode) -> str:
    """Return a short hash of the code and of the packaged weights that it names.

    A set-up cell is left out: it follows the address.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    setup = bool(code) and "google.colab" in code[0]
    text = "\0".join(code[setup:])
    text = text.replace("from_pretrained()", 'from_pretrained("default")')
    weights = (path.read_bytes() for path in WEIGHTS if f'"{path.stem}"' in text)
    return hashlib.sha256(b"\0".join([text.encode(), *weights])).hexdigest()[:16]


def is_executed(notebook: nbformat.NotebookNode) -> bool:
    """Return whether the outputs were made by this script from the cells as they stand now."""
    return notebook.metadata.get("drive_unet", {}).get("executed") == digest(notebook)


def sanitise(text: str) -> str:
    """Return an output's text with everything masked that may differ from run to run, as nbval does."""
    for pattern, replacement in get_sanitize_patterns(SANITISER.read_text(encoding="utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


def execute(notebook: nbformat.NotebookNode, folder: Path, timeout: int) -> None:
    """Run every cell in a fresh kernel of this environment and clean the outputs; raises as nbclient does."""
    manager = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {**os.environ, "DRIVE_UNET_DATA": "embedded", "DRIVE_UNET_BAR_DELAY": "600"}
    environment.pop("MPLBACKEND", None)  # the kernel would show no figure
    client.execute(
        env=environment, stderr=subprocess.DEVNULL
    )  # the kernel's own log; a cell's stderr is an output
    clean(notebook)


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what depends on the run or the editor: widgets, their states, all cell metadata but the tags."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        ignored = "nbval-ignore-output" in (tags or [])
        outputs = [output for output in cell.outputs if not (ignored and WIDGET in output.get("data", {}))]
        for output in outputs:
            output.get("data", {}).pop(WIDGET, None)  # its text stays: a strict comparison expects it
        cell.outputs = outputs
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "drive_unet": {"executed": digest(notebook)},
        }
    )


def changed(notebook: nbformat.NotebookNode, before: nbformat.NotebookNode) -> int:
    """Return how many cells have outputs that say something else than before."""
    old = {cell.id: cell.outputs for cell in before.cells if cell.cell_type == "code"}
    return sum(
        cell.id not in old or not same_outputs(old[cell.id], cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    )


def same_outputs(old: list, new: list) -> bool:
    """Return whether two lists of outputs say the same: texts after masking, pictures within a few levels."""
    old, new = _parts(old), _parts(new)
    return len(old) == len(new) and all(
        kind == other and (same_picture(value, twin) if kind.startswith("image/") else value == twin)
        for (kind, value), (other, twin) in zip(old, new, strict=True)
    )


def same_picture(old: str, new: str) -> bool:
    """Return whether two base64 pictures have one size and differ nowhere by more than a few levels."""
    if old == new:
        return True
    a, b = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=np.int16)
        for data in (old, new)
    )
    return a.shape == b.shape and int(np.abs(a - b).max()) <= SAME_PICTURE


def _parts(outputs: list) -> list[tuple[str, str]]:
    parts = []
    for output in coalesce_streams([nbformat.from_dict(output) for output in outputs]):
        if output.output_type == "stream":
            parts.append((output.name, sanitise(output.text)))
        for kind, value in sorted(output.get("data", {}).items()):
            parts.append((kind, sanitise(value) if kind.startswith("text/") else str(value)))
    return parts


def refresh(path: Path, timeout: int, fresh: bool) -> str:
    """Execute one notebook and write it; return a line about it, or raise RuntimeError and write nothing."""
    before = nbformat.read(path, as_version=4)
    notebook = nbformat.from_dict(before)
    start = time.perf_counter()
    try:
        execute(notebook, path.parent, timeout)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise RuntimeError(f"{path.name}: left as it was, a cell failed:\n{error}") from error
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(
                    f"{path.name}: left as it was, a cell wrote to stderr:\n{output.text}\nin\n{cell.source}"
                )
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    renewed = changed(notebook, before) if is_executed(before) and not fresh else cells
    if not renewed:
        return f"{path.stem:22} {seconds:6.1f} s, the same as before"
    text = nbformat.writes(notebook) + "\n"
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(path)
    size = len(text.encode()) / 1000
    return f"{path.stem:22} {seconds:6.1f} s {size:6.0f} kB   {renewed} of {cells} cells say something else"


def main(arguments: list[str] | None = None) -> int:
    """Refresh the notebooks named, or all; return 1 if one failed or, with --check, is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="beginnings of names, such as 04; default: all"
    )
    parser.add_argument(
        "--check", action="store_true", help="run nothing, name the notebooks that are out of date"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="take every new output, also where it says the same"
    )
    parser.add_argument(
        "--timeout", type=int, default=300, help="seconds a cell may take (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    lessons = [ROOT / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS]
    if missing := [path.name for path in lessons if not path.is_file()]:
        parser.error(f"not in notebooks/: {', '.join(missing)}")
    known = lessons + sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
    for name in options.names:
        if not any(path.stem.startswith(name) for path in known):
            parser.error(f"no notebook begins with {name!r}; there are {', '.join(p.stem for p in known)}")
    paths = [p for p in known if not options.names or any(p.stem.startswith(n) for n in options.names)]

    if options.check:
        stale = [path.name for path in paths if not is_executed(nbformat.read(path, as_version=4))]
        print(
            "\n".join(f"{name}: cells or weights changed since it was executed" for name in stale)
            or "all as executed"
        )
        return 1 if stale else 0

    from drive_unet.data.painted import embedded_folder

    embedded_folder()  # painted before the first kernel starts, so that no progress bar gets into an output
    failed = 0
    start = time.perf_counter()
    for path in paths:
        try:
            print(refresh(path, options.timeout, options.fresh), flush=True)
        except RuntimeError as error:
            failed += 1
            print(error, file=sys.stderr, flush=True)
    print(f"{len(paths) - failed} of {len(paths)} notebooks refreshed in {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write what a class gets: the notebooks without outputs, answers and solutions, and the package they need.

`python scripts/student_edition.py OUT` makes the folder OUT, which must not exist or be empty. What checks an
exercise stands in the package (`drive_unet/widgets/exercises`), where whoever looks for it finds it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

from rewrite_addresses import BADGE, NOTEBOOKS, ROOT

KEPT = (
    "drive_unet",
    "LICENSES",
    "LICENSE",
    "CITATION.cff",
    "benchmarks",
    "constraints.txt",
    "docs/measurements.md",
    "docs/notation.md",
    "pyproject.toml",
)
ANSWER = re.compile(
    r"\n*<details[^>]*>\s*<summary>\s*(?:Answer|Solution)s?\b.*?</details>", re.DOTALL | re.IGNORECASE
)
README = """\
# Segmenting retinal vessels: the notebooks of a course

To start, in this folder (on Windows `py` and `.venv\\Scripts\\` for `python3` and `.venv/bin/`):

```bash
{start}
```

`-c constraints.txt` gives every computer the same releases. PyTorch's default build for Linux is large;
without an NVIDIA card, install PyTorch's build for CPUs first. The photographs are painted on first use:
nothing is downloaded. Genuine ones take their place where `DRIVE_UNET_DATA` names a copy: of HRF (one
archive, `all.zip`, CC BY 4.0, from the University of Erlangen-Nuremberg) or of DRIVE (`training.zip` and
`test.zip`, after registration at drive.grand-challenge.org).

{contents}

Run a notebook from top to bottom. The exercises check themselves, and give a hint after a try. This is
software for research and teaching. It is **not a medical device**.
"""
START = (
    'python3 -m venv .venv && .venv/bin/python -m pip install -c constraints.txt -e ".[lab]"'
    " && .venv/bin/jupyter lab --ServerApp.root_dir=. notebooks/{first}.ipynb"
)


def strip(notebook: dict) -> None:
    """Take outputs, answers, solutions and the badge (it opens the executed notebook) out of parsed JSON."""
    notebook["metadata"].pop("drive_unet", None)
    kept = []
    for cell in notebook["cells"]:
        if "solution" in cell["metadata"].get("tags", []):
            continue
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        else:
            paragraphs = re.split(r"\n{2,}", ANSWER.sub("", "".join(cell["source"])))
            source = "\n\n".join(p for p in paragraphs if not BADGE.search(p) and "](solutions/" not in p)
            cell["source"] = source.strip("\n").splitlines(keepends=True)
            if not cell["source"]:
                continue
        kept.append(cell)
    notebook["cells"] = kept


def write(out: Path) -> None:
    """Write the student edition to a folder; FileExistsError if there is something in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already and not empty: name a new folder.")
    for name in KEPT:
        source, target = ROOT / name, out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*", "runs")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copyfile(source, target)
    (out / "notebooks").mkdir()
    contents = []
    for name in NOTEBOOKS:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        strip(notebook)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        (out / "notebooks" / f"{name}.ipynb").write_text(text, encoding="utf-8", newline="\n")
        title = "".join(notebook["cells"][0]["source"]).split("\n")[0].removeprefix("# ")
        contents.append(f"- [{title}](notebooks/{name}.ipynb)")
    readme = README.format(start=START.format(first=NOTEBOOKS[0]), contents="\n".join(contents))
    (out / "README.md").write_text(readme, encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """Write the edition to the folder named; return 1 if that holds something already."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    out = parser.parse_args(arguments).out
    try:
        write(out)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(NOTEBOOKS)} notebooks without outputs and answers in {out}, with the package")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Copy the repository's address from pyproject.toml to where readers need it.

`python scripts/rewrite_addresses.py` rewrites the Colab badge, the line of links and the set-up cell of
every notebook, the addresses in README.md, CITATION.cff and CHANGELOG.md, and in pyproject.toml where the
README's links lead when it stands alone. `--check` only names the files that would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = (
    "00_the_article",
    "01_data_exploration",
    "02_preprocessing",
    "03_model",
    "04_training",
    "05_evaluation",
    "06_visualization",
    "07_your_own_photographs",
    "A_painted_eyes",
)
TEXTS = ("README.md", "CITATION.cff", "CHANGELOG.md", "pyproject.toml")
COLAB = "https://colab.research.google.com"
BADGE = re.compile(rf"\[!\[[^\]]*\]\([^)]*\)\]\({re.escape(COLAB)}[^)]*\)")

SETUP = """\
import importlib.util
import sys
from glob import glob

if "google.colab" in sys.modules and not importlib.util.find_spec("drive_unet"):
    # Colab opens this one file only, so the package has to come along: as a wheel that lies in the
    # session's folder or in the mounted Drive{or_address}.
    wheels = sorted(glob("drive_unet-*.whl") + glob("drive/MyDrive/drive_unet-*.whl"))
{install}

from drive_unet import plots

plots.use_style()"""
FROM_ADDRESS = """\
    source = wheels[-1] if wheels else "git+{address}"
    %pip install --quiet "{{source}}\""""
FROM_WHEEL = """\
    if not wheels:
        sys.exit(
            "This copy of drive-unet has no public address yet, and there is no wheel of it here. Put "
            "drive_unet-*.whl (from `pip wheel --no-deps .` in the repository) into this session's "
            "folder or into your Drive, mount that, and run this cell again."
        )
    %pip install --quiet "{wheels[-1]}\""""


def repository() -> str:
    """Return the repository's address, such as https://github.com/OWNER/drive-unet, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].rstrip("/")


def badge(name: str, address: str) -> str:
    """Return the Markdown of the badge that opens notebook `name` on Colab."""
    slug = address.removeprefix("https://github.com/")
    return (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
        f"({COLAB}/github/{slug}/blob/main/notebooks/{name}.ipynb)"
    )


def links(name: str) -> str:
    """Return the line of links to the notebook before `name`, the index, and the notebook after it."""
    i = NOTEBOOKS.index(name)
    previous = f"[previous]({NOTEBOOKS[i - 1]}.ipynb)" if i > 0 else "previous"
    following = f"[next]({NOTEBOOKS[i + 1]}.ipynb)" if i + 1 < len(NOTEBOOKS) else "next"
    return f"{previous} · [index](../README.md) · {following}"


def setup_cell(address: str) -> str:
    """Return the source of the set-up cell, the same in every notebook.

    Nothing is ever installed from the placeholder's address: somebody else may hold that name.
    """
    if "/OWNER/" in address:
        return SETUP.format(or_address="", install=FROM_WHEEL)
    return SETUP.format(or_address=", or else from its address", install=FROM_ADDRESS.format(address=address))


def rewrite_notebook(notebook: dict, name: str, address: str) -> None:
    """Put badge and links under a notebook's title (in its parsed JSON), the set-up cell before its code."""
    cells = notebook["cells"]
    title = cells[0]
    lines = "".join(title["source"]).split("\n")
    if title["cell_type"] != "markdown" or not lines[0].startswith("# "):
        raise SystemExit(
            f"{name}.ipynb: its first cell is not a Markdown cell that begins with '# ' and a title."
        )
    rest = [line for line in lines[1:] if not BADGE.search(line) and "[index](" not in line]
    while rest and not rest[0].strip():
        del rest[0]
    head = [lines[0], "", badge(name, address), "", links(name)]
    title["source"] = _lines("\n".join([*head, "", *rest] if rest else head))

    code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
    if not code or "google.colab" not in "".join(cells[code[0]]["source"]):
        where = code[0] if code else len(cells)
        blank = {"cell_type": "code", "execution_count": None, "id": "setup", "metadata": {}, "outputs": []}
        cells.insert(where, blank)
        code = [where]
    cells[code[0]]["source"] = _lines(setup_cell(address))


def rewrite_text(text: str, address: str) -> str:
    """Return `text` with this project's address in every badge and link, whatever address stood there."""
    slug = address.removeprefix("https://github.com/")
    repository_name = slug.split("/")[1]
    owner = r"[\w.-]+"
    text = re.sub(
        rf"({re.escape(COLAB)}/github/){owner}/{owner}(/blob/main/notebooks/)", rf"\g<1>{slug}\g<2>", text
    )
    names = "|".join(sorted({"drive-unet", re.escape(repository_name)}))
    return re.sub(rf"(github\.com/){owner}/(?:{names})(?![\w-])", rf"\g<1>{slug}", text)


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)


def _rewritten(path: Path, address: str) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return rewrite_text(text, address)
    notebook = json.loads(text)
    rewrite_notebook(notebook, path.stem, address)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _lines(rewrite_text("".join(cell["source"]), address))
    # the layout that nbformat writes, so that only what changed shows in a diff
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the addresses, or with --check name the files that hold another; return 1 if there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file would change"
    )
    check = parser.parse_args(arguments).check
    address = repository()
    changed = []
    for name in [*TEXTS, *(f"notebooks/{name}.ipynb" for name in NOTEBOOKS)]:
        path = ROOT / name
        if not path.is_file():
            print(f"{name}: not there, passed over")
            continue
        text = _rewritten(path, address)
        if text != path.read_text(encoding="utf-8"):
            changed.append(name)
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print(
        f"{address}: "
        + (f"{'to rewrite' if check else 'rewrote'} {', '.join(changed)}" if changed else "nothing to do")
    )
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())

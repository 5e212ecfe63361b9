"""What several tests ask about the repository as a whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTION_PATHS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
# At the top of an unpacked source distribution, but not of the repository.
NOT_OURS = {"PKG-INFO", "build", "data", "dist", "runs"}
OUR_HIDDEN = {".ci", ".github", ".gitignore", ".pre-commit-config.yaml"}
# A folder of somebody's machine: home folders, temporary files, and where this copy of the repository lies.
_HERE = rf"|{re.escape(str(ROOT.parent))}[/\\]" if len(ROOT.parts) > 2 else ""
MACHINE_PATH = re.compile(rf"(?<![\w.~])(?:/(?:home|root|tmp|Users|private)/\w{_HERE})|\b[A-Z]:\\+Users")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)|(?:src|href)=[\"']([^\"']+)[\"']")


def files() -> list[Path]:
    """Return every file that is in the repository, or would be if all were added."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        listed = run.stdout.decode().split("\0")
    else:  # unpacked from a source distribution, perhaps inside another repository that ignores it
        listed = [
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if (top := path.relative_to(ROOT).parts[0]) not in NOT_OURS
            and not (top.startswith(".") and top not in OUR_HIDDEN)
            and "__pycache__" not in path.parts
        ]
    return sorted({ROOT / name for name in listed if name and (ROOT / name).is_file()})


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Return a notebook as committed."""
    return nbformat.read(path, as_version=4)


def broken_links(markdown: str, folder: Path) -> list[str]:
    """Return the targets of relative links in `markdown`, seen from `folder`, where there is no file."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
    targets = ["".join(groups) for groups in _LINK.findall(prose)]
    relative = [t for t in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#", t)]
    return [t for t in relative if not (folder / t.partition("#")[0]).exists()]


def fresh_environment(folder: Path) -> Path:
    """Make a virtual environment with every package of this one, pip too, but drive-unet; return its Python.

    The packages are linked, so nothing is downloaded or copied.
    """
    venv.create(folder / "venv", symlinks=os.name != "nt")
    binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / ("python.exe" if os.name == "nt" else "python")
    linked = folder / "linked"
    linked.mkdir()
    for parent in dict.fromkeys(p for p in sys.path if Path(p).name in {"site-packages", "dist-packages"}):
        for entry in Path(parent).iterdir():
            mine = re.match(r"_?_?(?:editable_*)?_*drive[_-]unet", entry.name, re.IGNORECASE)
            if not mine and not (linked / entry.name).exists():
                (linked / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    purelib = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    Path(purelib, "linked.pth").write_text(f"{linked}\n", encoding="utf-8")
    return python

"""What is public is shown or tested: the examples in docstrings run, and each name has one or the other."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT, files

import drive_unet

PACKAGE = ROOT / "drive_unet"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def doors() -> dict[str, Path]:
    """The public names, "room.name", with the file that each is defined in."""
    names = {}
    for door in (path for path in files() if path.name == "__init__.pyi"):
        for entry in ast.parse(door.read_text(encoding="utf-8")).body:
            file = door.parent / f"{getattr(entry, 'module', '') or ''}.py"
            if isinstance(entry, ast.ImportFrom) and file.is_file():
                names |= {f"{module_of(door.parent)}.{name.asname}": file for name in entry.names}
    return names


def definition(file: Path, name: str) -> ast.stmt | None:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return next((node for node in body if getattr(node, "name", None) == name), None)


def words(tree: ast.AST) -> set[str]:
    """The names that a piece of code uses; what it only speaks of, in texts and comments, is none."""
    uses = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    uses |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return uses | {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def example(node: ast.stmt | None) -> str:
    documented = isinstance(node, ast.FunctionDef | ast.ClassDef)
    return (ast.get_docstring(node) or "") if documented else ""


def untested(names: dict[str, Path], used: set[str]) -> list[str]:
    """Names without example, that no test uses; a class is used where a function that returns it is."""
    shown, returned = set(), {}
    for public, file in names.items():
        name = public.rpartition(".")[2]
        node = definition(file, name)
        if ">>> " in example(node) or name in used:
            shown.add(name)
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            returned[name] = words(node.returns)
    for name, types in returned.items():
        if name in shown:
            shown |= types
    return sorted(public for public in names if public.rpartition(".")[2] not in shown)


def test_every_public_name_has_an_example_or_a_test():
    used: set[str] = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        if path != Path(__file__):
            used |= words(ast.parse(path.read_text(encoding="utf-8")))
    names = doors()
    assert len(names) > 100
    assert untested(names, used) == []
    assert "drive_unet.metrics.SCORES" in untested(names, set())  # it can tell


@pytest.mark.parametrize(
    "name",
    [
        module_of(path)
        for path in files()
        if path.suffix == ".py"
        and path.is_relative_to(PACKAGE)
        and ">>> " in path.read_text(encoding="utf-8")
    ],
)
def test_examples_say_what_happens(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


HALF = np.full((40, 40), 0.5, np.float32)
DARK = np.zeros((40, 40), bool)


@pytest.mark.parametrize(
    ("call", "words"),
    {
        "scores": (lambda: drive_unet.scores(HALF, DARK, threshold=3), "threshold 3 is no probability"),
        "nan": (lambda: drive_unet.scores(HALF, DARK, threshold=float("nan")), "threshold nan is no"),
        "measure": (lambda: drive_unet.measure(~DARK, probability=255 * HALF), "probability lies in 0..1"),
        "measure nan": (lambda: drive_unet.measure(DARK, probability=np.nan * HALF), "probability lies"),
        "combine": (lambda: drive_unet.combine(bce=-1), "0 or more: {'bce': -1}"),
        "combine nan": (lambda: drive_unet.combine(bce=1, dice=float("nan")), "0 or more"),
        "assess": (
            lambda: drive_unet.assess(
                np.arange(4800, dtype=np.uint16).astype(np.uint8).reshape(40, 40, 3), DARK[1:]
            ),
            r"the field of view is \(39, 40\) and the photograph \(40, 40\)",
        ),
        "prepare": (
            lambda: drive_unet.prepare(np.zeros((40, 40, 3), np.uint8), ~DARK, degrees=0),
            "degrees=0: a camera's angle is more than 0",
        ),
        "widths": (lambda: drive_unet.UNet(widths=(4,)), "two widths or more"),
        "stem": (lambda: drive_unet.UNet(stem=0), "numbers of 1 or more"),
        "channels": (lambda: drive_unet.UNet(0), "numbers of 1 or more"),
    }.values(),
)
def test_values_out_of_the_range_that_is_documented_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()

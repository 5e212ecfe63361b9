"""Change the code in small ways, one at a time, and see whether the tests notice.

`python scripts/mutation_test.py` takes a sample of all such changes ("mutants") in the modules below, runs
the tests that belong to each module, and prints which survived. What is known is kept in a file, so that it
may be stopped and started again at any time; `--sample 0` takes them all. A survivor is either a gap in the
tests or no change at all.

Each mutant runs in a forked process, so that PyTorch is imported once; so it needs a POSIX system.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {  # of a module, and of one function where that is all that is meant
    "drive_unet.metrics.exact": ["tests/test_metrics.py"],
    "drive_unet.metrics.ranking": ["tests/test_metrics.py", "tests/test_metrics_streaming.py"],
    "drive_unet.metrics.pixels": ["tests/test_metrics.py", "tests/test_metrics_streaming.py"],
    "drive_unet.metrics.streaming": ["tests/test_metrics_streaming.py"],
    "drive_unet.metrics.bootstrap": ["tests/test_metrics_bootstrap.py"],
    "drive_unet.metrics.reliability": ["tests/test_metrics_reliability.py"],
    "drive_unet.metrics.vesselwise": ["tests/test_metrics_structure.py"],
    "drive_unet.data.pairing": [
        "tests/test_data.py",
        "-k",
        "fold or number or match or name or eyes or pair",
        "tests/test_find.py",
        "tests/test_layouts.py",
        "tests/test_bad_input.py",
        "tests/test_doctor.py",
    ],
    "drive_unet.data.drive:folds": ["tests/test_data.py", "-k", "fold"],
    "drive_unet.preprocessing.prepare": ["tests/test_preprocessing.py", "tests/test_one_pipeline.py"],
}
HEAVY = ("torch", "torchvision", "scipy.ndimage", "skimage.measure", "hypothesis", "accelerate", "pytest")
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub,
    ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutator(ast.NodeTransformer):
    """Makes the change of one number, and counts all; texts of messages and annotations stay."""

    def __init__(self, wanted: int, function: str) -> None:
        self.wanted, self.function, self.count, self.change = wanted, function, 0, ""

    def due(self, node: ast.AST, words: str) -> bool:
        self.count += 1
        if self.count - 1 == self.wanted:
            self.change = f"line {node.lineno}: {words}"
            return True
        return False

    def visit_Module(self, node: ast.Module) -> ast.AST:
        if not self.function:
            return self.generic_visit(node)
        node.body = [
            self.visit(part) if getattr(part, "name", "") == self.function else part for part in node.body
        ]
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None and self.due(node, "returns None"):
            node.value = ast.copy_location(ast.Constant(None), node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args.defaults = [self.visit(part) for part in node.args.defaults]
        node.args.kw_defaults = [part and self.visit(part) for part in node.args.kw_defaults]
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for index, operator in enumerate(node.ops):
            new = SWAPS.get(type(operator))
            if new and self.due(node, f"{type(operator).__name__} -> {new.__name__}"):
                node.ops[index] = new()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        new = SWAPS.get(type(node.op))
        if new and not text and self.due(node, f"{type(node.op).__name__} -> {new.__name__}"):
            node.op = new()
        return node

    visit_BoolOp = visit_AugAssign = lambda self, node: self._operator(node)

    def _operator(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        new = SWAPS.get(type(node.op))
        if new and self.due(node, f"{type(node.op).__name__} -> {new.__name__}"):
            node.op = new()
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if self.due(node, f"{type(node.op).__name__} removed"):
            return node.operand
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        refuses = len(node.body) == 1 and isinstance(node.body[0], ast.Raise)
        self.generic_visit(node)
        if not refuses and self.due(node, "condition negated"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        if refuses and self.due(node, "never refused"):
            node.test = ast.Constant(False)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            changed: object = not value
        elif isinstance(value, int | float):
            changed = value + 1
        else:
            return node
        return (
            ast.copy_location(ast.Constant(changed), node)
            if self.due(node, f"{value} -> {changed}")
            else node
        )


def mutated(name: str, number: int) -> tuple[str, str, int]:
    """Return the source of a module with change `number`, that change in words, and how many there are."""
    module, _, function = name.partition(":")
    source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    mutator = Mutator(number, function)
    tree = ast.fix_missing_locations(mutator.visit(ast.parse(source)))
    return ast.unparse(tree), mutator.change, mutator.count


class Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from changed source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        return importlib.util.spec_from_loader(name, self, origin=name) if name == self.name else None

    def get_source(self, name: str) -> str:
        return self.source

    def exec_module(self, module: object) -> None:
        file = (ROOT / Path(*self.name.split("."))).with_suffix(".py")
        module.__file__ = str(file)
        exec(compile(self.source, str(file), "exec"), module.__dict__)


def survives(name: str, source: str, seconds: float) -> tuple[bool, float]:
    """Return whether the tests of a module pass with this source, and how long they took."""
    begun, child = time.monotonic(), os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
            import pytest

            sys.meta_path.insert(0, Finder(name.partition(":")[0], source))
            early = "ignore::pytest.PytestAssertRewriteWarning"  # of what was imported before the fork
            code = pytest.main(["-x", "-q", "-W", early, "-p", "no:cacheprovider", *TESTS[name]])
        os._exit(int(code))
    while time.monotonic() - begun < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0, time.monotonic() - begun
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, time.monotonic() - begun


def chosen(sample: int, seed: int) -> Iterator[tuple[str, int]]:
    """Yield module and number of the mutants to be tried, as many of each, in one order for all runs.

    One of each module, then the next of each, so that a run that is stopped has tried something of all.
    """
    orders = {}
    for name in TESTS:
        numbers = list(range(mutated(name, -1)[2]))
        random.Random(f"{seed} {name}").shuffle(numbers)
        orders[name] = numbers[: sample or None]
    for turn in itertools.zip_longest(*orders.values()):
        yield from ((name, number) for name, number in zip(orders, turn, strict=True) if number is not None)


def main() -> int:
    """Try the sample, and print the share that was noticed; returns 0 if it is at least what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=40, help="mutants of each module; 0: all (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose name holds this")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; start again to go on")
    parser.add_argument("--known", type=Path, default=ROOT / ".mutants.jsonl", help="what is known already")
    parser.add_argument("--at-least", type=float, default=0.85, help="share to be noticed (default: 0.85)")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for heavy in HEAVY:
        importlib.import_module(heavy)
    known = {}
    if options.known.exists():
        known = {entry["key"]: entry for entry in map(json.loads, options.known.read_text().splitlines())}
    stop, baseline, results = time.monotonic() + 60 * options.minutes, {}, []
    for name, number in chosen(options.sample, options.seed):
        if options.only not in name:
            continue
        source, change, _ = mutated(name, number)
        tests = [Path(test).read_text(encoding="utf-8") for test in TESTS[name] if test.endswith(".py")]
        key = hashlib.sha256("".join([name, source, *tests]).encode()).hexdigest()[:20]
        if key not in known and time.monotonic() < stop:
            if name not in baseline:
                passed, baseline[name] = survives(name, mutated(name, -1)[0], 600)
                if not passed:
                    raise SystemExit(f"the tests of {name} fail as it is: {' '.join(TESTS[name])}")
            alive, took = survives(name, source, 30 + 5 * baseline[name])
            known[key] = {"key": key, "module": name, "change": change, "survives": alive, "seconds": took}
            with options.known.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key]) + "\n")
        if key in known:
            results.append(known[key])
    for name in TESTS:
        own = [entry for entry in results if entry["module"] == name]
        if own:
            print(f"{name}: {sum(not entry['survives'] for entry in own)} of {len(own)} noticed")
    for entry in results:
        if entry["survives"]:
            print(f"  survived: {entry['module']} {entry['change']}")
    share = sum(not entry["survives"] for entry in results) / max(1, len(results))
    print(f"{len(results)} mutants, {share:.1%} noticed")
    return int(share < options.at_least)


if __name__ == "__main__":
    sys.exit(main())

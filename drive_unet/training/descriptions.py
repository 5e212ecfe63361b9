"""What tells one loss or transform from another, in every process: its name, its code, what it holds.

Ours rather than pickle's bytes, which name a function and leave its code out.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

UNTOLD = "beyond comparison"  # how the content begins of what nothing tells from another


def described(function: Callable | None) -> str | None:
    """A loss or a transform in words: its own `description`, what it prints as, or its name."""
    if function is None:
        return None
    if hasattr(function, "description"):
        return function.description
    words = _name(function if hasattr(function, "__qualname__") else type(function))
    if isinstance(function, nn.Module):
        words = repr(function)
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in function.keywords.items())]
        words = f"{described(function.func)}({', '.join(given)})"
    return re.sub(r" at 0x[0-9a-f]+", "", words)


def content_of(function: Callable | None) -> str | None:
    """16 hexadecimal digits of what the words of a loss or a transform leave out; the same in every process.

    That is the code of its functions and classes, defaults, what closures hold, the globals that the code
    names, what it names in modules that are globals, and all attributes, to any depth. Code of installed
    packages counts by its name alone. A `description` vouches for all of it: then, and for None, there is no
    content.

    Returns:
        The digits, or None; or words that begin with `UNTOLD` and say why, where something cannot be
        compared, as an open file.
    """
    if function is None or hasattr(function, "description"):
        return None
    try:
        return hashlib.sha256(_told(function, {}).encode()).hexdigest()[:16]
    except Exception as error:  # whatever an object raises that is not to be copied; too deep a structure
        return f"{UNTOLD} ({type(error).__name__}: {str(error)[:100]})"


def _told(value: Any, seen: dict[int, tuple[int, Any]]) -> str:
    """A value in text without addresses; `seen` are those before it, by id, so that circles end."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return f"{type(value).__name__} {value!r}"
    if type(value) is tuple:
        return f"tuple {[_told(part, seen) for part in value]}"
    if type(value) in (set, frozenset):  # whose order differs from process to process
        return f"{type(value).__name__} {sorted(_told(part, dict(seen)) for part in value)}"
    if id(value) in seen:
        return f"number {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value  # kept, so that nothing else gets its id
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, Tensor):
        numbers = value.detach().cpu().as_subclass(Tensor).contiguous().flatten().view(torch.uint8)
        digits = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
        return f"{_name(type(value))} {value.dtype} {tuple(value.shape)} {digits}"
    if type(value) in (dict, MappingProxyType):
        pairs = [f"{_told(key, seen)}: {_told(part, seen)}" for key, part in value.items()]
        return f"dict {sorted(pairs)}"
    if type(value) is list:
        return f"list {[_told(part, seen) for part in value]}"
    return f"{_name(value)} {[_told(part, seen) for part in _parts(value)]}"


def _parts(value: Any) -> Iterator[Any]:
    """What anything else consists of."""
    if isinstance(value, CellType):  # of a closure
        yield value.cell_contents
    elif isinstance(value, CodeType):
        yield from (value.co_code, value.co_exceptiontable, value.co_names, value.co_consts)
    elif isinstance(value, FunctionType):
        yield from (value.__defaults__, value.__kwdefaults__, value.__closure__, value.__dict__)
        if not _installed(value):
            names = sorted(_globals(value.__code__) & value.__globals__.keys())
            held = {name: value.__globals__[name] for name in names}
            yield from (value.__code__, held, _through_modules(held.values(), _attributes(value.__code__)))
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, cached_property):
        yield value.func
    elif isinstance(value, type):
        for cls in value.__mro__:
            if not _installed(cls):
                yield _of_class(cls)
    else:  # as copying takes it apart: the name of a global, or how to make it, of what, and its state
        reduce = copyreg.dispatch_table.get(type(value))
        taken: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(taken, str):
            yield from (taken, getattr(value, "__wrapped__", None))
        else:
            for part in taken:
                yield list(part) if hasattr(part, "__next__") else part


def _of_class(cls: type) -> dict[str, Any]:
    """The functions and values of a class of one's own, without what Python adds."""
    added = ("member_descriptor", "getset_descriptor", "_abc_data")
    return {
        key: part
        for key, part in vars(cls).items()
        if type(part).__name__ not in added and (isinstance(part, FunctionType) or not key.startswith("__"))
    }


def _globals(code: CodeType) -> set[str]:
    """The names of globals that code reads, with those that functions inside it read."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(_globals(part) for part in code.co_consts if isinstance(part, CodeType)))


def _attributes(code: CodeType) -> set[str]:
    """The names of attributes that code reads, with those that functions inside it read."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    return own.union(*(_attributes(part) for part in code.co_consts if isinstance(part, CodeType)))


def _through_modules(values: Iterable[Any], names: set[str]) -> dict[str, Any]:
    """What these names stand for in modules of one's own, and in modules that they hold."""
    modules = [value for value in values if isinstance(value, ModuleType) and not _installed(value)]
    found: dict[str, Any] = {}
    for module in modules:
        for name in sorted(names & vars(module).keys()):
            part, key = vars(module)[name], f"{module.__name__}.{name}"
            if isinstance(part, ModuleType) and not _installed(part) and part not in modules:
                modules.append(part)
            found[key] = part
    return found


def _name(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def _installed(thing: Any) -> bool:
    """Whether a function, class or module comes with Python or a package, whose versions tell it."""
    module = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    top = str(module).partition(".")[0]
    folders = Path(getattr(sys.modules.get(top), "__file__", None) or "").parts
    known = top in sys.stdlib_module_names or top == "drive_unet"
    return known or "site-packages" in folders or "dist-packages" in folders

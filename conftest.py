"""What a test run needs: the embedded data whatever the user has, and strict notebooks on any machine."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest

os.environ["DRIVE_UNET_DATA"] = "embedded"
os.environ.pop("MPLBACKEND", None)  # a notebook kernel would inherit it and show no figure
matplotlib.use("Agg")  # this process only: tests open no window

CELL_TIMEOUT = 300  # seconds; a kernel that died would otherwise be waited for until nbval's 2000


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share a run of everything among the cores, a notebook or a file to each, if pytest-xdist is there.

    Threads of two processes that want the same cores take several times as long as one thread each.
    """
    option = config.option
    everything = config.args_source is config.ArgsSource.TESTPATHS
    alone = option.collectonly or option.usepdb or "PYTEST_XDIST_WORKER" in os.environ
    if everything and not alone and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist = min(4, os.cpu_count() or 1), "loadscope"
        option.loadscopereorder = False  # or it would undo the order of `pytest_collection_modifyitems`
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Set nbval's options where nbval is installed and the command line does not name its own."""
    option = config.option
    if not hasattr(option, "nbval"):
        return
    if option.nbval_sanitize_with is None:
        option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "notebook_outputs.cfg")
    if option.nbval_kernel_name is None:
        option.nbval_current_env = True
    if option.nbval_cell_timeout == 2000:
        option.nbval_cell_timeout = CELL_TIMEOUT
    # Kernels inherit it: reading files takes long enough for a progress bar on a busy machine only.
    os.environ.setdefault("DRIVE_UNET_BAR_DELAY", "600")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no core waits at the end: browser, notebooks, command line."""
    order = ("test_browser", ".ipynb", "test_cli", "test_distributed")
    last = len(order)
    items.sort(key=lambda item: next((i for i, part in enumerate(order) if part in item.path.name), last))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the embedded set painted before the first notebook, so that no output holds the progress bar."""
    if session.config.option.collectonly:
        return
    if any(item.path.suffix == ".ipynb" for item in session.items):
        from drive_unet.data.painted import embedded_folder

        embedded_folder(progress=False)

"""In a real browser: notebook 06 runs in JupyterLab and its explorer answers keys; a report opens offline.

The time from a key press to the new picture is measured and printed; what is asserted about it is loose, so
that a busy machine fails nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from repository import ROOT, read_notebook

from drive_unet.data import DRIVEDataset
from drive_unet.data.reading import Decoded
from drive_unet.evaluation import Prediction, audit, evaluate, evaluate_second_observer, report

NOTEBOOK = ROOT / "notebooks" / "06_visualization.ipynb"
PRESSES = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {  # nothing that asks, reports or looks for updates
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    }
}

SMALL = """\
import numpy as np
from drive_unet import explore
rng = np.random.default_rng(0)
vessels = np.zeros((584, 565), bool)
vessels[100:500:40] = vessels[:, 100:500:60] = True
image = rng.integers(60, 200, (584, 565, 3), dtype=np.uint8)
explore([(image, vessels, None)] * 3, [rng.random((584, 565)).astype(np.float32)] * 3)"""
EYE = "from drive_unet import explore_eye\nexplore_eye()"

READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  const session = panel?.context?.sessionContext;
  return Boolean(session?.isReady && session.session?.kernel?.connectionStatus === "connected");
}"""
RUN_ALL = """() => {
  window.finished = null;
  window.jupyterapp.commands.execute("notebook:run-all-cells").then(
    () => { window.finished = "yes"; }, (error) => { window.finished = String(error); });
}"""
OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter((cell) => cell.model.type === "code").map((cell) => cell.model.sharedModel.toJSON())"""
SHOW = """(index) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  return notebook.scrollToItem(index, "start");
}"""
# From the key's way down to the handle to the moment the browser has the new picture decoded.
WATCH = """(picture) => {
  window.times = [];
  document.addEventListener("keydown", () => { window.pressed = performance.now(); }, true);
  picture.addEventListener("load", () => window.times.push(performance.now() - window.pressed));
}"""


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright: the one on the path, else the one that Playwright brought."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        except sync_api.Error as error:
            pytest.skip(f"no browser starts here: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with no setting of whoever runs this; gives its address."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed: pip install -e '.[browser]'")
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    for notebook in NOTEBOOK.parent.glob("*.ipynb"):
        shutil.copy(notebook, work)
    for name, code in (("small", SMALL), ("eye", EYE)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata["kernelspec"] = kernel
        nbformat.write(notebook, work / f"{name}.ipynb")
    for name, settings in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{kind.upper()}_DIR": str(folder / kind) for kind in ("settings", "workspaces")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **own, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("MPLBACKEND", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={work}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (folder / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(address, server, folder / "log")
            yield address
        finally:
            server.terminate()  # it ends its kernels on the way
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")


def run_all(browser, address: str, name: str, *, width: int = 1360, height: int = 900):
    """Open a notebook in JupyterLab, run all its cells, and return the page."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(f"{address}/lab/tree/{name}?reset", timeout=90_000)
    page.wait_for_function(READY, timeout=90_000)  # the idle icon comes earlier; a run sent then is lost
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => window.finished", timeout=240_000)
    return page


def show_explorer(page):
    """Scroll to the explorer of notebook 06 and return its sliders and its picture, both locators."""
    cells = read_notebook(NOTEBOOK).cells
    index = next(i for i, cell in enumerate(cells) if "nbval-ignore-output" in cell.metadata.get("tags", []))
    page.evaluate(SHOW, index)
    picture = page.locator("img.widget-image")
    picture.wait_for(timeout=30_000)
    return page.locator(".widget-hslider .noUi-handle"), picture


def press(page, slider, picture, key: str, times: int) -> list[float]:
    """Press a key on a slider several times; return the milliseconds until each new picture was there."""
    slider.focus()
    taken = []
    for _ in range(times):
        before, count = picture.get_attribute("src"), page.evaluate("window.times.length")
        slider.press(key)
        page.wait_for_function("count => window.times.length > count", arg=count, timeout=30_000)
        page.wait_for_timeout(250)  # a redraw may send the picture first and its legend later
        assert picture.get_attribute("src") != before
        taken.append(page.evaluate("count => window.times[count]", count))
    return taken


@pytest.mark.browser
def test_the_explorer_answers_the_keyboard(browser, lab, capsys):
    page = run_all(browser, lab, NOTEBOOK.name)
    cells = page.evaluate(OUTPUTS)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert page.evaluate("window.finished") == "yes"
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []

    sliders, picture = show_explorer(page)
    line = page.locator(".widget-html", has_text="threshold")
    picture.evaluate(WATCH)
    text = line.inner_text()
    moves = {"threshold": (0, "ArrowLeft"), "opacity": (1, "ArrowLeft"), "zoom": (2, "ArrowRight")}
    moves |= {"up, down": (3, "ArrowLeft"), "left, right": (4, "ArrowRight")}  # after zoom: else disabled
    taken = {}
    for name, (index, key) in moves.items():
        taken[name] = press(page, sliders.nth(index), picture, key, PRESSES)
        if name == "threshold":
            assert line.inner_text() != text, "the scores follow the threshold"
    with capsys.disabled():
        print("\nkey press to new picture, median of", PRESSES, "presses:", end=" ")
        print(", ".join(f"{name} {statistics.median(ms):.0f} ms" for name, ms in taken.items()))

    page.locator(".widget-checkbox", has_text="Measurements").locator("input").check()
    table = page.locator(".widget-html table", has_text="tortuosity")
    table.wait_for(timeout=60_000)
    measured = table.inner_text()
    press(page, sliders.nth(0), picture, "ArrowLeft", 1)
    page.wait_for_function(
        "before => document.querySelector('.widget-html table').innerText !== before", arg=measured
    )
    assert "vessel area density" in table.inner_text() and "label" in table.inner_text()
    page.close()


@pytest.mark.browser
def test_the_explorer_answers_the_mouse_and_fits_the_screen(browser, lab):
    page = run_all(browser, lab, "small.ipynb", width=1366, height=768)
    picture = page.locator("img.widget-image")
    picture.wait_for(timeout=30_000)
    page.wait_for_selector(".drive-unet-explorer[data-ready]", timeout=30_000)
    page.evaluate(SHOW, 0)
    picture.scroll_into_view_if_needed()
    picture.evaluate("picture => picture.scrollIntoView({block: 'end'})")
    box, panel = picture.bounding_box(), page.locator(".jp-Notebook").bounding_box()
    assert box["y"] >= panel["y"] and box["y"] + box["height"] <= panel["y"] + panel["height"] + 1
    assert box["x"] + box["width"] <= panel["x"] + panel["width"]
    assert box["height"] > 450, "it is not small either"
    names = page.locator(".drive-unet-explorer .noUi-handle").evaluate_all(
        "handles => handles.map(handle => handle.getAttribute('aria-label'))"
    )
    assert names == ["Threshold", "Opacity", "Zoom", "Up, down", "Left, right"]
    assert picture.get_attribute("alt") == "0: errors, zoom 1.0"
    tracks = page.locator(".drive-unet-explorer .noUi-base").evaluate_all("t => t.map(e => e.clientWidth)")
    assert min(tracks) > 140

    def until(zoom: str) -> tuple[float, float]:
        page.wait_for_function(f"document.querySelector('.drive-unet-state span').dataset.zoom === '{zoom}'")
        return page.evaluate("(({down, right}) => [+down, +right])"
                             "(document.querySelector('.drive-unet-state span').dataset)")  # fmt: skip

    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.wheel(0, -100)
    down, right = until("1.20")
    assert down < 0.5 and right < 0.5, "towards the pointer"
    picture.press("+")
    before = until("1.50")
    page.mouse.down()
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.15 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_function(
        f"document.querySelector('.drive-unet-state span').dataset.down !== '{before[0]:.4f}'"
    )
    assert all(after > start for after, start in zip(until("1.50"), before, strict=True))
    picture.press("0")
    assert list(until("1.00")) == [0.5, 0.5]
    picture.press("n")
    page.wait_for_function("document.querySelector('.drive-unet-state').textContent.startsWith('1:')")
    with page.expect_download(timeout=30_000) as download:
        page.locator(".drive-unet-save").click()
    assert download.value.suggested_filename == "1_errors.png"
    page.close()


@pytest.mark.browser
def test_the_eye_explorer_answers_the_keyboard_and_its_buttons(browser, lab):
    page = run_all(browser, lab, "eye.ipynb")
    cells = page.evaluate(OUTPUTS)
    assert page.evaluate("window.finished") == "yes"
    assert [o for cell in cells for o in cell["outputs"] if o["output_type"] in ("error", "stream")] == []
    picture = page.locator("img.widget-image")
    picture.wait_for(timeout=30_000)
    picture.evaluate(WATCH)
    line = page.locator(".widget-html", has_text="second observer's Dice")
    sliders, before = page.locator(".widget-hslider .noUi-handle"), line.inner_text()
    press(page, sliders.nth(0), picture, "ArrowRight", 1)
    assert line.inner_text() != before, "another eye"
    press(page, sliders.nth(1), picture, "ArrowRight", 1)
    shown = picture.get_attribute("src")
    page.locator(".widget-toggle-button", has_text="Arteries and veins").click()
    page.wait_for_function(
        "shown => document.querySelector('img.widget-image').src !== shown", arg=shown, timeout=30_000
    )
    legend = page.locator(".widget-html", has_text="arteries")
    legend.wait_for(timeout=30_000)
    assert "veins" in legend.inner_text()
    page.close()


@pytest.mark.browser
def test_a_report_opens_offline_whole_and_without_complaint(browser, tmp_path):
    rng = np.random.default_rng(0)
    fov = np.hypot(*(np.mgrid[:420, :430] - 212.0)) < 206  # wide enough for calibres in pixels
    names, photographs, maps = [f"{number:02}" for number in range(6)], [], []
    for shift in range(6):
        vessels = np.zeros(fov.shape, bool)
        for left, width in ((20, 1), (50, 3), (80, 5), (110, 8)):  # one of each calibre
            vessels[:, left + shift : left + shift + width] = True
        vessels &= fov
        second = np.roll(vessels, 1, axis=0) & fov
        image = rng.integers(60, 200, (3, *fov.shape), dtype=np.uint8)
        planes = (torch.from_numpy(mask.astype(np.uint8)[None]) for mask in (vessels, fov))
        photographs.append(Decoded(torch.from_numpy(image), *planes, second))
        maps.append((0.7 * vessels + 0.3 * rng.random(fov.shape)).astype(np.float32) * fov)
    dataset = DRIVEDataset.from_decoded(names, photographs)
    scored = evaluate(maps, dataset, name="<b>bold</b>", thorough=True)
    habits = audit(map(Prediction, maps), dataset, scored)
    observer = evaluate_second_observer(dataset)
    path = report(tmp_path / "scores.html", scored, dataset, observer=observer, audit=habits)

    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert complaints == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert [url for url in requests if url.startswith("file")] == [path.as_uri()]

    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Scores", "The same predictions by every habit", "All thresholds", "Can the probability be trusted?",
        "Which vessels are missed?", "Better than a human?", "Photograph by photograph", "The worst",
        "Protocol",
    ]  # fmt: skip
    assert page.locator("h1").inner_text() == "<b>bold</b> on 6 photographs", "names are text, not markup"
    assert page.locator(".verdict").inner_text() == habits.verdict
    table = page.locator("table").first
    dice = table.locator("tr", has=page.locator("th", has_text=re.compile("^Dice$"))).locator("td").first
    assert dice.inner_text() == f"{scored.pooled['Dice']:.4f}"
    sizes = page.locator("img").evaluate_all("all => all.map(i => i.complete ? i.naturalWidth : 0)")
    assert len(sizes) == 5 + 6 + 2 * 3, "charts, a strip of all, the three worst twice"
    assert min(sizes) > 0
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "nothing sticks out"
    context.close()

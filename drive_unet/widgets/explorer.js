// The mouse and the keyboard on the explorer's picture, and names for screen readers.
//
// `start` is called with the hidden picture that brought this script. Wanted views go to Python through a hidden text
// field, one at a time: the next one when the picture of the last is there.
(function start(carrier, tries) {
  const root = carrier.closest(".drive-unet-explorer");
  const picture = root && root.querySelector("img.drive-unet-picture, .drive-unet-picture img");
  const field = root && root.querySelector(".drive-unet-wanted input");
  const state = () => root.querySelector(".drive-unet-state span");
  if (!picture || !field || !state()) {
    if (tries < 100) setTimeout(() => start(carrier, tries + 1), 50);
    return;
  }
  if (root.dataset.ready) return;
  root.dataset.ready = "yes";

  const MAX = Number(state().dataset.most);
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  let wanted = null, waiting = false, count = 0, timer = null;

  const now = () => {
    if (wanted) return { ...wanted };
    const given = state().dataset;
    return { zoom: Number(given.zoom), down: Number(given.down), right: Number(given.right) };
  };
  const send = () => {
    if (!wanted || waiting) return;
    const { zoom, down, right } = wanted;
    waiting = true;
    timer = setTimeout(arrived, 1000); // a view that changes nothing brings no picture
    field.value = [zoom.toFixed(2), down.toFixed(4), right.toFixed(4), ++count].join(" ");
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
    sent = wanted;
  };
  let sent = null;
  const arrived = () => {
    if (!waiting) return;
    clearTimeout(timer);
    waiting = false;
    if (wanted === sent) wanted = null; else send();
  };
  const want = (zoom, down, right) => {
    zoom = clamp(zoom, 1, MAX);
    const margin = 0.5 / zoom;
    wanted = { zoom, down: clamp(down, margin, 1 - margin), right: clamp(right, margin, 1 - margin) };
    send();
  };
  picture.addEventListener("load", arrived);

  // Where the pointer is: 0..1 down and right in the picture, or in the half of two that lie side by side.
  const place = (event) => {
    const box = picture.getBoundingClientRect();
    const panes = Number(state().dataset.panes);
    const across = ((event.clientX - box.left) / box.width) * panes;
    return { y: (event.clientY - box.top) / box.height, x: across - Math.floor(clamp(across, 0, panes - 0.001)) };
  };
  const zoomAt = (factor, at) => {
    const { zoom, down, right } = now();
    const next = clamp(Math.floor(zoom * factor * 10 + 1e-6) / 10, 1, MAX); // the slider's steps
    const shift = (1 / zoom - 1 / next);
    want(next, down + (at.y - 0.5) * shift, right + (at.x - 0.5) * shift);
  };
  picture.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && now().zoom <= 1) return; // nothing to zoom out of: the page scrolls
    event.preventDefault();
    zoomAt(event.deltaY < 0 ? 1.25 : 0.8, place(event));
  }, { passive: false });

  let grip = null;
  picture.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    picture.focus({ preventScroll: true });
    picture.setPointerCapture(event.pointerId);
    grip = { x: event.clientX, y: event.clientY, ...now() };
    picture.style.cursor = "grabbing";
  });
  picture.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const box = picture.getBoundingClientRect();
    const width = box.width / Number(state().dataset.panes);
    want(grip.zoom, grip.down - (event.clientY - grip.y) / (box.height * grip.zoom),
      grip.right - (event.clientX - grip.x) / (width * grip.zoom));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    picture.addEventListener(end, () => { grip = null; picture.style.cursor = "grab"; });
  }
  picture.addEventListener("dblclick", () => want(1, 0.5, 0.5));
  picture.addEventListener("dragstart", (event) => event.preventDefault());

  const press = (name) => root.querySelector(`.drive-unet-${name}`).click();
  const KEYS = {
    "+": () => zoomAt(1.25, { x: 0.5, y: 0.5 }), "=": () => zoomAt(1.25, { x: 0.5, y: 0.5 }),
    "-": () => zoomAt(0.8, { x: 0.5, y: 0.5 }), 0: () => want(1, 0.5, 0.5),
    n: () => press("next"), p: () => press("previous"), s: () => press("save"),
  };
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  picture.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) {
      const { zoom, down, right } = now();
      want(zoom, down + (0.2 * STEPS[event.key][0]) / zoom, right + (0.2 * STEPS[event.key][1]) / zoom);
    } else if (event.key in KEYS) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
  // A key that is meant for the explorer is not one for the notebook, which would leave the cell.
  root.addEventListener("keydown", (event) => { if (event.key !== "Tab" && event.key !== "Escape") event.stopPropagation(); });

  picture.tabIndex = 0;
  picture.style.cursor = "grab";
  picture.style.touchAction = "none";
  picture.setAttribute("role", "img");
  const name = () => picture.setAttribute("alt", state().textContent);
  name();
  picture.addEventListener("load", name);
  for (const part of root.querySelectorAll("[class*='drive-unet-named-']")) {
    const label = part.querySelector("label, .widget-label");
    const text = label && label.textContent;
    const control = part.querySelector("[role=slider], .noUi-handle, select, input:not([type=radio])");
    if (text && control && !control.getAttribute("aria-label")) control.setAttribute("aria-label", text);
    const group = part.querySelector(".widget-radio-box");
    if (group) { group.setAttribute("role", "radiogroup"); group.setAttribute("aria-label", text || "Layer"); }
  }
  const line = root.querySelector(".drive-unet-line");
  if (line) line.setAttribute("aria-live", "polite");
})(this, 0);

// Live updates, filters without a reload, and forms in a dialog. All of it works without this, too.
"use strict";

const root = document.body.dataset.root;
const live = document.getElementById("live");
const filters = document.getElementById("filters");
const dialog = document.getElementById("dialog");
let source = null;

// -- live updates: the nodes of the page stay, so focus, selection and scrolling do, too -----------

function sameKind(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName &&
    (a.nodeType !== 1 || a.dataset.id === b.dataset.id);
}

function update(old, next) {
  if (old.nodeType === 3) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  if (old.nodeType !== 1) return;
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  updateChildren(old, next);
}

// Between rows and sections white space means nothing; it only would make nodes change places.
function strip(parent) {
  if (!/^(TABLE|THEAD|TBODY|TR|UL|DIV|SECTION|#document-fragment)$/.test(parent.nodeName)) return;
  for (const child of [...parent.childNodes]) {
    if (child.nodeType === 8 || (child.nodeType === 3 && !child.data.trim())) child.remove();
  }
}

// A node that moves loses the focus: so those that are gone go first, and others stay if they can.
function updateChildren(old, next) {
  strip(old);
  strip(next);
  const wanted = new Set([...next.children].map((child) => child.dataset.id).filter(Boolean));
  for (const child of [...old.children]) {
    if (child.dataset.id && !wanted.has(child.dataset.id)) child.remove();
  }
  const named = new Map();
  for (const child of old.children) if (child.dataset.id) named.set(child.dataset.id, child);
  let place = old.firstChild;
  for (const child of [...next.childNodes]) {
    const known = child.nodeType === 1 && child.dataset.id ? named.get(child.dataset.id) : null;
    if (known && sameKind(known, child)) {
      if (known !== place) old.insertBefore(known, place);
      else place = place.nextSibling;
      update(known, child);
    } else if (place && !(place.dataset && place.dataset.id) && sameKind(place, child)) {
      update(place, child);
      place = place.nextSibling;
    } else {
      old.insertBefore(child, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

// While the pointer or the focus is in the list, its rows keep their places, so that a click meets
// the row that it was meant for.
function keepOrder(next) {
  const body = live.querySelector("table.list tbody");
  const coming = next.querySelector("table.list tbody");
  if (!body || !coming) return;
  const pointed = matchMedia("(hover: hover)").matches && body.matches(":hover");
  if (!pointed && !body.contains(document.activeElement)) return;
  const rows = new Map([...coming.children].map((row) => [row.dataset.id, row]));
  const order = [...body.children].map((row) => rows.get(row.dataset.id) || row.cloneNode(true));
  const shown = new Set(order.map((row) => row.dataset.id));
  const rest = [...coming.children].filter((row) => !shown.has(row.dataset.id));
  const room = Math.max(0, Number(coming.children.length) - order.length);
  coming.replaceChildren(...order, ...rest.slice(0, room));
}

function connect() {
  if (source) source.close();
  const query = live.dataset.query;
  source = new EventSource(`${root}/events?of=${live.dataset.of}${query ? "&" + query : ""}`);
  const lost = document.getElementById("connection");
  source.addEventListener("piece", (event) => {
    lost.hidden = true;
    const next = document.createElement("template");
    next.innerHTML = event.data;
    keepOrder(next.content);
    updateChildren(live, next.content);
    live.dataset.updated = Date.now();
  });
  source.addEventListener("error", () => { lost.hidden = false; });
  source.addEventListener("open", () => { lost.hidden = true; });
}

if (live) {
  connect();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
}

// -- the list: filters, order and pages --------------------------------------------------------------

function show(parameters) {
  const query = parameters.toString();
  history.replaceState(null, "", `${root}/${query ? "?" + query : ""}`);
  live.dataset.query = query;
  if (document.activeElement !== document.body && live.contains(document.activeElement)) {
    if (!document.activeElement.closest("thead, .pages")) document.activeElement.blur();
  }
  connect();
}

if (filters) {
  const apply = () => {
    const parameters = new URLSearchParams(new FormData(filters));
    for (const [name, value] of [...parameters]) {
      const filter = ["name", "scope", "adapter"].includes(name);
      if (filter ? value === "*" : value === "" || value === "0" || (name === "sort" && value === "load")) {
        parameters.delete(name);
      }
    }
    show(parameters);
  };
  let timer = 0;
  filters.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(apply, 200); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-live]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const parameters = new URL(link.href).searchParams;
    filters.elements.sort.value = parameters.get("sort") || "load";
    filters.elements.reverse.value = parameters.get("reverse") || "0";
    show(parameters);
  });
}

// -- forms in a dialog -------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (link && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.button) {
    event.preventDefault();
    const answer = await fetch(`${link.getAttribute("href")}&fragment=1`).catch(() => null);
    if (!answer || !answer.ok) { location.href = link.href; return; }
    dialog.innerHTML = await answer.text();
    dialog.showModal();
    const first = dialog.querySelector("[autofocus], input:not([type=hidden])");
    if (first) first.focus();
  }
  if (event.target.closest("a[data-cancel]") && dialog.open) {
    event.preventDefault();
    dialog.close();
  }
});

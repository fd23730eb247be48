"use strict";
// Sorting, pointing and stepping. Without this script the page still shows everything.

const tip = document.getElementById("tip");

function show(element) {
  hide();
  if (!element) return;
  tip.textContent = said(element);
  tip.hidden = false;
  element.classList.add("on");
  const box = element.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.x + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = box.y - tip.offsetHeight - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
}

function hide() {
  tip.hidden = true;
  document.querySelectorAll(".on").forEach((element) => element.classList.remove("on"));
}

function said(element) {
  if (element.dataset.tip) return element.dataset.tip;
  const table = element.closest("table");
  const row = element.parentElement.cells[0].textContent;
  const column = table.tHead.rows[0].cells[element.cellIndex].textContent;
  return `${row} and ${column}: ${element.textContent}`;
}

const POINTED = "[data-tip], .heat td[style]";
document.addEventListener("pointerover", (event) => show(event.target.closest(POINTED)));
document.addEventListener("scroll", hide, { passive: true });

// Arrow keys step through the points of a picture or the cells of a heat map.
document.querySelectorAll(".chart, .heat").forEach((picture) => {
  const points = [...picture.querySelectorAll(POINTED)];
  let at = -1;
  picture.addEventListener("keydown", (event) => {
    const rows = picture.matches(".heat");
    const last = points.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: rows ? -rowLength(points[at], -1) : -1, ArrowDown: rows ? rowLength(points[at], 0) : 1 }[event.key];
    if (event.key === "Escape") return hide();
    if (!step || last < 0) return;
    event.preventDefault();
    at = Math.min(last, Math.max(0, at + step));
    show(points[at]);
  });
  picture.addEventListener("blur", () => { at = -1; hide(); });
});

// Cells of a triangle's row: from a cell to the one below it, or to the one above.
function rowLength(cell, shift) {
  return cell ? cell.parentElement.cells.length - 1 + shift : 1;
}

document.querySelectorAll("th[data-sort] button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const table = head.closest("table");
    const down = head.getAttribute("aria-sort") !== "descending" && (head.dataset.sort === "number" || head.hasAttribute("aria-sort"));
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
    const number = (text) => (text === "" ? -Infinity : Number(text));
    const compare = head.dataset.sort === "number"
      ? (a, b) => number(key(a)) - number(key(b))
      : (a, b) => key(a).localeCompare(key(b));
    const rows = [...table.tBodies[0].rows].sort(compare);
    table.tBodies[0].append(...(down ? rows.reverse() : rows));
  });
});

// The names of languages, as the reader's own browser knows them.
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
document.querySelectorAll("[data-language]").forEach((element) => {
  try {
    element.textContent = names.of(element.dataset.language) ?? "";
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // not a code of a language
  }
});

for (const name of ["beforeprint", "afterprint"]) {
  addEventListener(name, () => document.querySelectorAll("details").forEach((part) => { part.open = name === "beforeprint"; }));
}

"use strict";
// Sorting, filtering, copying, pointing and stepping. Without this script the page still shows everything.

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

// A column sorts one way, then the other; a third press brings the given order and its groups back.
const ORDERS = { number: ["descending", "ascending", null], text: ["ascending", "descending", null] };

document.querySelectorAll("table:has(th[data-sort])").forEach((table) => {
  const given = [...table.querySelectorAll("tbody tr:not(.group)")].map((row) => [row, row.parentElement]);
  table.querySelectorAll("th[data-sort] button").forEach((button) => {
    button.addEventListener("click", () => sort(table, button.parentElement, given));
  });
});

function sort(table, head, given) {
  const orders = ORDERS[head.dataset.sort];
  const order = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % orders.length];
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  table.classList.toggle("sorted", order !== null);
  if (order === null) {
    given.forEach(([row, body]) => body.append(row));
  } else {
    head.setAttribute("aria-sort", order);
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
    const number = (text) => (text === "" ? -Infinity : Number(text));
    const compare = head.dataset.sort === "number"
      ? (a, b) => number(key(a)) - number(key(b))
      : (a, b) => key(a).localeCompare(key(b));
    const rows = given.map(([row]) => row).sort(compare);
    table.tBodies[0].append(...(order === "descending" ? rows.reverse() : rows));
  }
  hideEmpty(table);
}

// A group without a row to show goes, too; the first body holds all rows of a sorted table.
function hideEmpty(table) {
  for (const body of table.tBodies) body.hidden = ![...body.rows].some((row) => !row.hidden && !row.matches(".group"));
}

document.querySelectorAll("[data-filters]").forEach((input) => {
  const table = document.getElementById(input.dataset.filters);
  const rows = [...table.querySelectorAll("tbody tr:not(.group)")];
  const groups = new Map(rows.map((row) => [row, row.parentElement.dataset.words]));
  const words = (row) => `${row.cells[0].textContent} ${row.cells[1].textContent} ${groups.get(row)}`.toLowerCase().split(/[\s,]+/);
  input.closest(".filter").hidden = false;
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.hidden = !wanted.every((start) => words(row).some((word) => word.startsWith(start))); });
    hideEmpty(table);
    const left = rows.filter((row) => !row.hidden).length;
    input.closest(".filter").querySelector("output").textContent = wanted.length ? `${left} of ${rows.length}` : "";
  });
});

document.querySelectorAll("[data-copies]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    getSelection().selectAllChildren(source); // what a browser without a clipboard leaves to copy by hand
    if (!navigator.clipboard) return;
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
});

// A link to what is folded unfolds it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const parts = [target.querySelector(":scope > details.part"), target.closest("details.part")].filter(Boolean);
  parts.forEach((part) => { part.open = true; });
  if (parts.length) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
document.querySelectorAll('a[href^="#"]').forEach((link) => link.addEventListener("click", () => setTimeout(unfold))); // pressed again, the hash stays
unfold();

// The names of languages, as the reader's own browser knows them.
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
document.querySelectorAll("[data-language]").forEach((element) => {
  try {
    element.textContent = names.of(element.dataset.language) ?? "";
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // not a code of a language
  }
});

// All is printed, and folded afterwards as before.
const folded = [];
addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll("details:not([open])")];
  folded.push(...closed);
  closed.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => folded.splice(0).forEach((part) => { part.open = false; }));

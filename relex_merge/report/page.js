"use strict";
const table = document.getElementById("tensors");
const body = table.tBodies[0];

function value(row, column) {
  return row.cells[column].dataset.value;
}

function sort(header) {
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const compare = (one, other) => {
    const [a, b] = [value(one, column), value(other, column)];
    if (a === "" || b === "") return (a === "") - (b === ""); // undefined figures come last
    const order = column ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

for (const button of table.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}

const filter = document.getElementById("filter");
const count = document.getElementById("count");
const all = body.rows.length;

function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const name = value(row, 0).toLowerCase();
    row.hidden = !words.every((word) => name.includes(word));
    shown += !row.hidden;
  }
  count.textContent = shown === all ? `${all} tensors` : `${shown} of ${all} tensors`;
}

filter.addEventListener("input", show);
show(); // a browser may keep what was typed before a reload

// Sorts the gradebook by the column of the button: names upwards first, numbers downwards first, empty cells last.
"use strict";
const table = document.querySelector(".gradebook");
const columns = [...table.tHead.rows[0].cells];
for (const [n, column] of columns.entries()) {
  column.querySelector("button").addEventListener("click", () => {
    const before = column.getAttribute("aria-sort") || (n ? "ascending" : "descending");
    const sign = before === "ascending" ? -1 : 1;
    const key = row => row.cells[n].dataset.value ?? row.cells[n].textContent;
    const compare = (a, b) => sign * a.localeCompare(b, "en", {numeric: true});
    const numbers = (a, b) => (a === "") - (b === "") || sign * (a - b);
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (n ? numbers : compare)(key(a), key(b)));
    table.tBodies[0].append(...rows);
    columns.forEach(other => other.removeAttribute("aria-sort"));
    column.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
  });
}

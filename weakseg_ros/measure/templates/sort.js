// SPDX-License-Identifier: Apache-2.0
// A click on the head of a column sorts the table by it; a second one turns the order around.
for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  head.title = "sort";
  const sort = () => {
    const column = [...head.parentNode.children].indexOf(head), body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const value = row => { const cell = row.cells[column], text = cell.dataset.v || cell.textContent.trim();
      const number = parseFloat(text.replaceAll(",", "")); return isNaN(number) ? text : number; };
    const before = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    const told = [...body.rows].filter(row => typeof value(row) === "number" || !/^[–-]?$/.test(value(row)));
    const silent = [...body.rows].filter(row => !told.includes(row));  // rows without a figure stay below
    told.sort((a, b) => before(value(a), value(b)));
    body.append(...(down ? told.reverse() : told), ...silent);
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  head.onclick = sort;
  head.onkeydown = event => { if (event.key === "Enter") sort(); };
}

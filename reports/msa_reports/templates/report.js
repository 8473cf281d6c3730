"use strict";
(() => {
  const tables = [...document.querySelectorAll("table.series")];
  const words = new Map();
  const text = (row) => words.get(row) ?? words.set(row, row.textContent.toLowerCase()).get(row);

  // Missing values stay last in either direction.
  const compare = (a, b, column, numeric, sign) => {
    const x = a.cells[column].dataset.v, y = b.cells[column].dataset.v;
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
  };

  const sort = (table, header, direction) => {
    const numeric = header.dataset.kind === "number";
    const sign = direction === "ascending" ? 1 : -1;
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const body = table.tBodies[0];
    const sorted = [...body.rows].sort((a, b) => compare(a, b, header.cellIndex, numeric, sign));
    body.append(...sorted);
    shorten(table);
  };

  // Of a long table, the first rows that match are laid out until the reader asks for the rest.
  const shorten = (table) => {
    const more = table.parentNode.querySelector(".more");
    const limit = more.dataset.all ? Infinity : Number(table.dataset.rows);
    const matching = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    matching.forEach((row, i) => row.classList.toggle("late", i >= limit));
    more.hidden = matching.length <= limit;
    more.textContent = `Show ${matching.length - limit} more of this table`;
  };

  for (const table of tables) {
    for (const header of table.tHead.rows[0].cells) {
      if (!header.dataset.kind) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const now = header.getAttribute("aria-sort");
        const first = header.dataset.first;
        const other = first === "ascending" ? "descending" : "ascending";
        sort(table, header, now === first ? other : first);
      });
    }
  }

  for (const table of tables) {
    const more = table.parentNode.querySelector(".more");
    more.addEventListener("click", () => {
      const next = table.querySelector("tr.late:not([hidden]) summary");
      more.dataset.all = "yes";
      shorten(table);
      if (next) next.focus();
    });
  }

  // A filter is for the tables of its own section.
  for (const tools of document.querySelectorAll(".tools")) {
    const box = tools.querySelector("input"), verdict = tools.querySelector("select");
    const count = tools.querySelector("output");
    const mine = tables.filter((table) => tools.closest("section").contains(table));
    const rows = mine.flatMap((table) => [...table.tBodies[0].rows]);
    const filter = () => {
      const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      const verdicts = verdict.value === "" ? null : verdict.value.split(",");
      let shown = 0;
      for (const row of rows) {
        const match = wanted.every((word) => text(row).includes(word)) &&
          (verdicts === null || verdicts.includes(row.dataset.verdict));
        row.hidden = !match;
        shown += match;
      }
      for (const table of mine) {
        table.parentNode.hidden = [...table.tBodies[0].rows].every((row) => row.hidden);
        shorten(table);
      }
      count.textContent = `Found ${shown} of ${rows.length} ${tools.dataset.noun}`;
    };
    tools.hidden = false;
    box.addEventListener("input", filter);
    verdict.addEventListener("change", filter);
    filter();
  }

  // On paper nothing can be opened any more. The numbers of many small plots are for the screen.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open], .small *)")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
})();

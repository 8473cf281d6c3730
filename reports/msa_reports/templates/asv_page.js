"use strict";
// Stand-ins for three small libraries of asv's page that no Python package has.

// Sorting of tables: asv calls stupidtable() on a table and stupidsort() on a head, and listens to
// "aftertablesort". data-sort on a head names the order, data-sort-value on a cell its value.
(($) => {
  const text = (a, b) => a.localeCompare(b);
  const orders = {
    int: (a, b) => parseInt(a, 10) - parseInt(b, 10),
    float: (a, b) => parseFloat(a) - parseFloat(b),
    string: text,
    "string-ins": (a, b) => text(a.toLowerCase(), b.toLowerCase()),
  };
  const value = (row, column) => {
    const cell = $(row).children("th, td").eq(column);
    const given = cell.data("sort-value");
    return String(given === undefined ? cell.text() : given);
  };

  $.fn.stupidtable = function (own) {
    return this.each(function () {
      const table = $(this);
      table.data("orders", { ...orders, ...own });
      table.off("click.sort").on("click.sort", "thead th[data-sort]", function () {
        $(this).stupidsort();
      });
    });
  };

  $.fn.stupidsort = function (wanted) {
    return this.each(function () {
      const head = $(this), table = head.closest("table"), column = head.index();
      const order = table.data("orders")?.[head.data("sort")];
      if (!order) return;
      const direction = wanted || (head.data("sort-dir") === "asc" ? "desc" : "asc");
      const sign = direction === "desc" ? -1 : 1;
      const rows = table.children("tbody").children("tr").get();
      rows.sort((a, b) => sign * order(value(a, column), value(b, column)));
      table.children("tbody").append(rows);
      table.find("thead th").data("sort-dir", null);
      head.data("sort-dir", direction);
      table.trigger("aftertablesort", { column, direction });
    });
  };

  // Bars of several series side by side: asv numbers them from 1 as bars.order.
  $.plot.plugins.push({
    name: "orderBars",
    version: "1.0",
    options: {},
    init: (plot) => {
      plot.hooks.processDatapoints.push((_, series, points) => {
        const order = series.bars?.order;
        if (!series.bars?.show || !order) return;
        const drawn = plot.getData().filter((one) => one.bars?.show && one.bars.order);
        const place = drawn.findIndex((one) => one.bars.order === order);
        const shift = (place - (drawn.length - 1) / 2) * series.bars.barWidth;
        for (let i = 0; i < points.points.length; i += points.pointsize) points.points[i] += shift;
      });
    },
  });
})(jQuery);

// asv uses it only to make keys of the browser's storage for regressions that a reader has hidden;
// the text itself is as good a key.
const md5 = String;

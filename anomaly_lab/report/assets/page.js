"use strict";
(() => {
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f5af0", "#8a8a8a"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = ["circle", "triangle-up", "square", "diamond", "cross", "star", "x", "pentagon"];
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const all = (query, node = document) => [...node.querySelectorAll(query)];
  const look = (place) => ({
    color: COLOURS[place % COLOURS.length],
    dash: DASHES[Math.floor(place / COLOURS.length) % DASHES.length],
  });

  // Filters: an element is shown if it is of what was chosen, as far as it says of what it is.
  const chosen = {};
  function filter(root = document) {
    for (const name of ["data", "metric", "method", "tag"]) {
      for (const node of all(`[data-f-${name}]`, root)) {
        const hidden = ["data", "metric", "method", "tag"].some((key) => {
          const mine = node.getAttribute(`data-f-${key}`);
          return mine !== null && chosen[key] && chosen[key] !== mine;
        });
        node.hidden = hidden;
      }
    }
  }
  for (const field of all("select[data-filter]")) {
    field.addEventListener("change", () => {
      chosen[field.dataset.filter] = field.value;
      filter();
      fillPlaces();
      watch();
    });
  }

  // Tables: DataTables makes them sortable and searchable; without it they are tables still.
  async function tables() {
    const code = atob(document.getElementById("datatables").textContent);
    const bytes = Uint8Array.from(code, (sign) => sign.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], {type: "text/javascript"}));
    const {jQuery} = await import(address);
    URL.revokeObjectURL(address);
    for (const table of all("table.sortable")) {
      const long = table.tBodies[0].rows.length > 8;
      const made = jQuery(table).DataTable({
        paging: false, info: false, searching: long, order: [], autoWidth: false,
        layout: {topStart: long ? "search" : null, topEnd: null, bottomStart: null, bottomEnd: null},
        language: {search: "", searchPlaceholder: "search", zeroRecords: "nothing fits"},
      });
      made.on("draw", () => filter(table));
      for (const field of all("input[type=search]", table.closest(".box"))) {
        field.setAttribute("aria-label", `search in ${table.closest(".box").getAttribute("aria-label")}`);
      }
    }
    document.documentElement.dataset.tables = "ready";
  }

  // Plots are drawn when they come into sight, and anew when the colours of the page change.
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function layout(x, y, more = {}) {
    const axis = {gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true};
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 10, r: 10, t: 10, b: 10},
      font: {family: "system-ui, sans-serif", size: 12, color: css("--ink")}, hovermode: "closest",
      xaxis: {...axis, title: {text: x}}, yaxis: {...axis, title: {text: y, standoff: 12}},
      legend: {orientation: "h", y: -0.25, yanchor: "top"}, showlegend: true, ...more,
    };
  }
  function draw(node, traces, shape) {
    Plotly.react(node, traces, shape, {responsive: true, displaylogo: false, displayModeBar: false});
  }

  function ablation(node, plot) {
    const values = [...new Set([...plot.lines.flatMap((line) => line.points), ...plot.paper].map((p) => p[0]))];
    const numbers = values.every((value) => value.trim() !== "" && isFinite(value));
    const at = (value) => (numbers ? Number(value) : escaped(value));
    const sorted = (points) => (numbers ? [...points].sort((a, b) => a[0] - b[0]) : points);
    const mode = numbers ? "lines+markers" : "markers";
    const traces = plot.lines.map((line, place) => ({
      name: escaped(line.name), mode, x: line.points.map((p) => at(p[0])), y: line.points.map((p) => p[1]),
      line: look(place), marker: {color: look(place).color, size: 8},
      error_y: {type: "data", array: line.points.map((p) => p[2] ?? NaN), visible: line.points.some((p) => p[2] !== null)},
    }));
    if (plot.paper.length) {
      const points = sorted(plot.paper);
      traces.push({
        name: "paper", mode, x: points.map((p) => at(p[0])), y: points.map((p) => p[1]),
        line: {color: css("--quiet"), dash: "dash"}, marker: {color: css("--quiet"), size: 8, symbol: "diamond-open"},
      });
    }
    const shape = layout(escaped(plot.x), escaped(plot.y));
    shape.yaxis.range = plot.range;
    if (!numbers) shape.xaxis.type = "category";
    draw(node, traces, shape);
  }

  function tsne(node, plot) {
    const kinds = Object.keys(plot.kinds).sort();
    const traces = kinds.map((kind, place) => ({
      name: kind === "" ? "normal" : escaped(kind), mode: "markers", x: plot.kinds[kind].x, y: plot.kinds[kind].y,
      text: plot.kinds[kind].names.map(escaped), hoverinfo: "text+name",
      marker: {
        size: 8, color: kind === "" ? "#8a8a8a" : COLOURS[(place + COLOURS.length - 1) % COLOURS.length],
        symbol: kind === "" ? "circle" : SYMBOLS[place % SYMBOLS.length], line: {width: 0.5, color: css("--paper")},
      },
    }));
    const shape = layout("", "", {legend: {orientation: "h", y: -0.04, yanchor: "top"}});
    for (const axis of [shape.xaxis, shape.yaxis]) Object.assign(axis, {showticklabels: false, showgrid: false});
    draw(node, traces, shape);
  }

  // Plotly reads a few HTML tags in texts.
  const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[sign]);

  // Curves of one category: a plot a kind, one legend, which is a table with the areas.
  const PANELS = {
    roc: {x: "fpr", y: "tpr", area: "auroc", title: "ROC", axes: ["false positive rate", "true positive rate"]},
    pr: {x: "tpr", y: "precision", area: "ap", title: "Precision and recall", axes: ["recall", "precision"]},
    pro: {x: "fpr", y: "overlap", area: "aupro", title: "Per-region overlap",
      axes: ["false positive rate", "mean overlap of the regions"]},
  };
  const place = document.getElementById("place");
  const level = document.getElementById("level");
  function options(field, pairs) {
    const before = field.value;
    field.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
    if (pairs.some(([value]) => value === before)) field.value = before;
  }
  function fillPlaces() {
    if (!place) return;
    const fitting = plots.curves.map((one, number) => [String(number), `${one.data}, ${one.category}`])
      .filter(([number]) => !chosen.data || plots.curves[number].data === chosen.data);
    options(place, fitting);
    fillLevels();
  }
  function fillLevels() {
    const methods = place.value === "" ? [] : plots.curves[place.value].methods;
    const there = ["pixel", "image"].filter((name) => methods.some((one) => `${name}_fpr` in one.curves));
    options(level, there.map((name) => [name, name === "pixel" ? "pixels" : "images"]));
    curves();
  }
  function curves() {
    if (place.value === "") return;
    const methods = plots.curves[place.value].methods.map((one, number) => ({...one, ...look(number)}))
      .filter((one) => `${level.value}_fpr` in one.curves)
      .filter((one) => !chosen.method || one.method === chosen.method)
      .filter((one) => !chosen.tag || one.tag === chosen.tag);
    legend(methods);
    for (const [name, panel] of Object.entries(PANELS)) {
      const node = document.getElementById(`curves-${name}`);
      const drawn = methods.filter((one) => `${level.value}_${panel.y}` in one.curves);
      node.hidden = !drawn.length;
      if (!drawn.length) continue;
      node.setAttribute("aria-label", `${panel.title} of ${level.value}s: ${drawn.map((one) => one.name).join(", ")}`);
      const traces = drawn.map((one) => ({
        name: escaped(one.name), mode: "lines", x: one.curves[`${level.value}_${panel.x}`],
        y: one.curves[`${level.value}_${panel.y}`],
        line: {color: one.color, dash: one.dash, width: 2, shape: panel.area === "ap" ? "vh" : "linear"},
      }));
      const chance = panel.area === "ap" ? drawn[0].curves[`${level.value}_precision`].at(-1) : null;
      traces.push({
        name: "chance", mode: "lines", x: [0, 1], y: chance === null ? [0, 1] : [chance, chance], hoverinfo: "skip",
        line: {color: css("--quiet"), dash: "dash", width: 1},
      });
      const shape = layout(...panel.axes, {showlegend: false, title: {text: panel.title, font: {size: 13}}});
      shape.margin.t = 36;
      for (const axis of [shape.xaxis, shape.yaxis]) axis.range = [-0.02, 1.02];
      if (panel.area === "aupro") Object.assign(shape, limits(drawn));
      draw(node, traces, shape);
    }
  }
  // Up to here the region overlap counts.
  function limits(methods) {
    const rates = [...new Set(methods.map((one) => one.limit))].filter((x) => x !== null).sort((a, b) => a - b);
    const font = {size: 11, color: css("--quiet")};
    return {
      shapes: rates.map((x) => ({
        type: "line", x0: x, x1: x, y0: 0, y1: 1, line: {color: css("--quiet"), dash: "dot", width: 1.5},
      })),
      annotations: rates.map((x, place) => ({
        x, y: 0.02 + 0.07 * place, text: `AUPRO up to ${x}`, font, showarrow: false, yanchor: "bottom",
        xanchor: x > 0.6 ? "right" : "left",
      })),
    };
  }
  function cell(kind, text, attributes = {}) {
    const node = document.createElement(kind);
    node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  function legend(methods) {
    const table = document.createElement("table");
    const areas = Object.values(PANELS).filter((panel) =>
      methods.some((one) => `${level.value}_${panel.area}` in one.areas));
    const names = areas.map((panel) => `${level.value}_${panel.area}`);
    table.createTHead().insertRow().append(
      cell("th", "method, seed", {scope: "col"}), ...names.map((name) => cell("th", name, {scope: "col"})));
    const body = table.createTBody();
    for (const one of methods) {
      const head = cell("th", "", {scope: "row"});
      const swatch = cell("span", "", {class: "swatch", "aria-hidden": "true"});
      swatch.style.borderTopColor = one.color;
      swatch.style.borderTopStyle = one.dash === "solid" ? "solid" : one.dash === "dot" ? "dotted" : "dashed";
      head.append(swatch, `${one.name}, ${one.seed}`);
      body.insertRow().append(head, ...names.map((name) =>
        cell("td", name in one.areas ? one.areas[name].toFixed(3) : "–")));
    }
    document.getElementById("legend").replaceChildren(table);
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const tint = () => document.documentElement.classList.toggle("dark", dark.matches); // as DataTables asks for it
  tint();
  const DRAWS = {ablation, tsne};
  const drawn = new Set();
  function show(node) {
    if (node.closest("[hidden]")) return;
    drawn.add(node);
    if (node.dataset.plot) DRAWS[plots[node.dataset.plot].kind](node, plots[node.dataset.plot]);
    else curves();
  }
  const observer = new IntersectionObserver((seen) => {
    for (const {isIntersecting, target} of seen) {
      if (isIntersecting) {
        observer.unobserve(target);
        show(target);
      }
    }
  }, {rootMargin: "400px"});
  const waiting = () => all("[data-plot], #curve-plots").filter((node) => !drawn.has(node));
  function watch() {
    for (const node of waiting()) observer.observe(node);
  }

  if (place) {
    place.addEventListener("change", fillLevels);
    level.addEventListener("change", curves);
    fillPlaces();
  }
  watch();
  dark.addEventListener("change", () => {
    tint();
    drawn.forEach(show);
  });
  addEventListener("beforeprint", () => waiting().forEach(show));
  function opened() {
    const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!found || found.tagName !== "DETAILS") return;
    for (let node = found; node; node = node.parentElement.closest("details")) node.open = true;
    found.scrollIntoView();
  }
  addEventListener("hashchange", opened);
  opened();
  for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());
  tables().catch((error) => console.error(error));
})();

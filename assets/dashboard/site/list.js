// The list of units: search, filters, order; only the rows in view are in the page.
"use strict";
lorascope.list = (() => {
  const HEIGHT = 52;
  const filters = { kind: "", layer: "", projection: "", label: "", category: "", alive: "alive" };
  const NAMES = { kind: "any kind", layer: "any layer", projection: "any projection", label: "any class", category: "any category" };
  const ORDERS = { score: "sort: score", density: "sort: density", max: "sort: max", label: "sort: class", id: "sort: id" };
  const LABELS = { 0: "class 0", 1: "class 1", 2: "class 2" };
  let shown = [];
  let order = "score";
  let chosen = -1;

  const element = (id) => document.getElementById(id);

  const select = (name, options) => lorascope.make("select", { name, "aria-label": name, onchange: (event) => { if (name === "order") order = event.target.value; else filters[name] = event.target.value; refresh(); } },
    options.map(([value, text]) => lorascope.make("option", { value }, text)));

  const choices = (name) => {
    const found = [...new Set(lorascope.data.units[name])].filter((value) => value !== null && value !== "" && value !== -1);
    found.sort((a, b) => (typeof a === "number" ? a - b : a < b ? -1 : 1));
    return [["", NAMES[name]], ...found.map((value) => [String(value), name === "layer" ? `layer ${value}` : name === "label" ? LABELS[value] : lorascope.visible(String(value))])];
  };

  const matches = (row, words) => {
    const units = lorascope.data.units;
    if (filters.alive === "alive" && units.n_fired[row] === 0) return false;
    for (const name of Object.keys(NAMES)) if (filters[name] !== "" && String(units[name][row]) !== filters[name]) return false;
    if (!words.length) return true;
    const text = `${units.unit[row]} ${units.explanation[row]} ${units.tokens[row].join(" ")}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };

  const value = (row) => lorascope.data.units[order][row] ?? -Infinity;
  const compare = (a, b) => {
    if (order === "id") return a - b;
    const difference = order === "label" ? (lorascope.data.units.label[a] ?? 9) - (lorascope.data.units.label[b] ?? 9) : value(b) - value(a);
    return difference || lorascope.data.units.density[b] - lorascope.data.units.density[a] || a - b;
  };

  // At the right of a row: its class, and the number that the list is ordered by.
  const aside = (row) => {
    const { label, score, max, density } = lorascope.data.units;
    const ordered = order === "score" ? `score ${score[row]?.toFixed(3) ?? "–"}` : order === "max" ? `max ${lorascope.number(max[row])}` : lorascope.percent(density[row]);
    return label[row] === null ? ordered : `${LABELS[label[row]]} · ${ordered}`;
  };

  const refresh = () => {
    const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = lorascope.data.units.unit.map((_, row) => row).filter((row) => matches(row, words)).sort(compare);
    element("count").textContent = `${shown.length.toLocaleString("en")} of ${lorascope.data.units.unit.length.toLocaleString("en")} units${shown.length ? "" : ": nothing matches all of this"}`;
    element("spacer").style.height = `${shown.length * HEIGHT}px`;
    draw();
  };

  const draw = () => {
    const rows = element("rows");
    rows.querySelectorAll(".row").forEach((row) => row.remove());
    const first = Math.max(0, Math.floor(rows.scrollTop / HEIGHT) - 3);
    const last = Math.min(shown.length, first + Math.ceil(rows.clientHeight / HEIGHT) + 6);
    const units = lorascope.data.units;
    for (let i = first; i < last; i += 1) {
      const row = shown[i];
      const item = lorascope.make("div", { class: row === chosen ? "row chosen" : "row", role: "option", id: `row-${row}`, "aria-selected": String(row === chosen), "data-unit": units.unit[row], onclick: () => lorascope.go({ unit: units.unit[row] }) },
        lorascope.make("div", { class: "head" }, lorascope.make("b", {}, units.unit[row]), lorascope.make("span", { class: "right" }, aside(row))), lorascope.make("div", {}, lorascope.visible(units.explanation[row] || "no explanation")));
      item.style.top = `${i * HEIGHT}px`;
      rows.append(item);
    }
    if (element(`row-${chosen}`)) rows.setAttribute("aria-activedescendant", `row-${chosen}`);
    else rows.removeAttribute("aria-activedescendant");
  };

  const choose = (row) => {
    chosen = row;
    const place = shown.indexOf(row) * HEIGHT;
    const rows = element("rows");
    if (place >= 0 && (place < rows.scrollTop || place + HEIGHT > rows.scrollTop + rows.clientHeight)) rows.scrollTop = place - rows.clientHeight / 3;
    draw();
  };

  const step = (by) => { const next = shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(chosen) + by))]; if (next !== undefined) lorascope.go({ unit: lorascope.data.units.unit[next] }); };

  const start = () => {
    element("selects").append(...Object.keys(NAMES).filter((name) => choices(name).length > 2).map((name) => select(name, choices(name))), select("alive", [["alive", "alive only"], ["", "alive and dead"]]), select("order", Object.entries(ORDERS)));
    element("selects").querySelector("[name=order]").value = order;
    const search = element("search");
    const find = () => { element("rows").scrollTop = 0; refresh(); };
    search.addEventListener("input", find);
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && shown.length) { lorascope.go({ unit: lorascope.data.units.unit[shown[0]] }); search.blur(); }
      // Firefox leaves the text, WebKit the list.
      if (event.key === "Escape") { search.value = ""; find(); }
    });
    element("filters").addEventListener("submit", (event) => event.preventDefault());
    element("rows").addEventListener("scroll", () => requestAnimationFrame(draw));
    addEventListener("resize", draw);
    refresh();
  };
  return { start, choose, draw, step, first: () => shown[0], shown: () => shown.map((row) => lorascope.data.units.unit[row]) };
})();

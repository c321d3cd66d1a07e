// One unit: what it is, how it fires, what it writes, and its contexts, truly ranked.
"use strict";
lorascope.unit = (() => {
  const { make, number, percent, token, visible, lone, legend } = lorascope;
  let shown = 0;
  let marked = null;

  const scores = (units, row) => {
    const [score, low, high, typical, fuzzing, intruder] = ["score", "score_low", "score_high", "typical", "fuzzing", "intruder"].map((name) => units[name][row]);
    const said = [
      score === null ? null : `detection score ${number(score)}${low === null ? "" : ` [${number(low, 2)}, ${number(high, 2)}]`}`,
      typical === null ? null : `predicts ${percent(typical)} of typical activations`,
      fuzzing === null ? null : `fuzzing score ${number(fuzzing)}`,
      intruder === null ? null : `finds ${percent(intruder)} of intruders`,
    ].filter((text) => text !== null);
    return said.length ? said : ["not scored"];
  };

  const facts = (row) => {
    const units = lorascope.data.units;
    const label = units.label[row];
    return make("p", { class: "facts" }, [
      label === null ? `no class (${units.status[row] ?? "not explained"})` : `class ${label}: ${["monosemantic", "broad but consistent", "polysemantic"][label]}`,
      `category ${units.category[row] || "none"}${units.subcategory[row] ? ` / ${units.subcategory[row]}` : ""}`,
      ...scores(units, row),
      `density ${percent(units.density[row])}`, `fires ${units.n_fired[row].toLocaleString("en")}×`, `max ${number(units.max[row])}`,
    ].map((text) => make("span", {}, visible(text))));
  };

  const histogram = (detail) => {
    const counts = detail.histogram;
    const most = Math.max(1, ...counts.map((count) => Math.log1p(count)));
    const edge = (bin) => number((bin / counts.length) * detail.max);
    const bars = counts.map((count, bin) => {
      const bar = make("i", { title: `${edge(bin)} to ${edge(bin + 1)}: ${count.toLocaleString("en")} tokens` });
      bar.style.height = `${(100 * Math.log1p(count)) / most}%`;
      return bar;
    });
    return make("div", { class: "double" }, make("h3", {}, "Activations where it fires"),
      make("div", { class: "histogram", role: "img", "aria-label": `Histogram of activations from 0 to ${number(detail.max)}` }, bars),
      make("p", { class: "axis" }, ["0", edge(counts.length / 2), number(detail.max)].map((text) => make("span", {}, text))),
      make("p", { class: "soft small" }, `Height: log of the number of tokens; the highest bar has ${Math.max(...counts).toLocaleString("en")}.`));
  };

  const pairs = (title, why, rows, spoken) => rows.length ? make("div", {}, make("h3", { title: why }, title), make("table", {}, rows.map(([text, value]) => make("tr", {}, make("td", { class: "text" }, lone(text)), make("td", { class: "number" }, spoken(value)))))) : null;

  // Trailing zeros stay: the numbers stand below each other.
  const digits = (value) => value.toPrecision(3);

  const effects = (detail, kind) => {
    const top = pairs("Top tokens", "Tokens at the peaks of its strongest contexts, and how many of them", detail.top_tokens, String);
    const up = detail.logits && pairs("Promotes", "Tokens whose logit the direction raises most, written once into the residual stream", detail.logits.up, digits);
    const down = detail.logits && pairs("Suppresses", "Tokens whose logit the direction lowers most", detail.logits.down, digits);
    const note = detail.logits ? "Promotes, suppresses: logit effects, what it writes through the final norm's gain and the unembedding." : kind === "adapter" ? "No logit effects: only o_proj and down_proj write into the residual stream." : "";
    const fires = detail.max > 0 ? histogram(detail) : make("p", { class: "soft" }, "It fires on no token.");
    return [make("div", { class: "columns" }, fires, top, up, down), note && make("p", { class: "soft small" }, note)];
  };

  // Projections down, layers across: 64 layers fit beside the list. The cells come after the first paint.
  const heat = (detail) => {
    const { projections, rows } = detail.decoder;
    const most = Math.max(1e-12, ...rows.flat().map(Math.abs));
    const named = rows.length > 16 ? 8 : 1;
    const heads = rows.flatMap((_, layer) => layer % named ? [] : [make("th", { colspan: Math.min(named, rows.length - layer) }, `L${layer}`)]);
    const table = make("table", { class: "heat" }, make("tr", {}, make("th", {}, ""), heads), projections.map((name, i) => make("tr", {}, make("th", {}, name.replace("_proj", "")), rows.map((row, layer) => {
      const cell = make("td", { title: `L${layer}.${name}: ${number(row[i])}`, "aria-label": `L${layer}.${name}: ${number(row[i])}` });
      cell.style.backgroundColor = `rgba(var(--${row[i] < 0 ? "negative" : "positive"}), ${(Math.abs(row[i]) / most).toFixed(3)})`;
      return cell;
    }))));
    table.style.maxWidth = `${3 + 2.2 * rows.length}rem`;
    return [table, make("p", { class: "soft small" }, legend(most))];
  };

  const context = (unit, scale, polarity, found, rank) => {
    const text = make("p", { class: "text" }, lorascope.runs(found.pieces, 0, found.pieces.length, (i) => found.values[i] !== 0 || found.start + i === found.position, (i) => {
      const span = token(found.pieces[i], found.values[i] * polarity, scale, found.values[i] ? number(found.values[i] * polarity, 4) : null);
      if (found.start + i === found.position) span.classList.add("peak");
      return span;
    }));
    const place = { unit, rollout: found.rollout, token: found.position };
    return make("div", { class: "context", "data-sample": found.sample, "data-rollout": found.rollout, "data-position": found.position, "data-value": found.value, "data-start": found.start },
      make("div", { class: "about" }, rank ? make("b", {}, `#${rank}`) : null, make("span", {}, found.sample === "silent" ? "silent" : number(found.value)), make("span", {}, `rollout ${found.rollout}, token ${found.position}`),
        make("span", { class: "buttons" }, make("button", { type: "button", title: "Read the whole rollout", onclick: () => lorascope.go(place) }, "rollout"),
          make("button", { type: "button", title: "Copy the text of this context", onclick: (event) => lorascope.copy(found.pieces.join(""), event.target) }, "copy"),
          make("button", { type: "button", title: "Copy a link to this token", onclick: (event) => lorascope.copy(lorascope.address(place), event.target) }, "link"))), text);
  };

  // Builders, not elements: the first screen is shown before the rest is made.
  const contexts = (unit, detail, fired) => [["top", "Max-activating contexts"], ["quantile", "Across the activation range"], ["silent", "Does not fire"]].flatMap(([sample, title]) => {
    const found = detail.contexts.filter((one) => one.sample === sample);
    const count = sample === "top" ? `${found.length} of ${fired.toLocaleString("en")}` : found.length;
    return found.length ? [() => make("h3", {}, `${title} (${count})`), ...found.map((one, i) => () => context(unit, detail.max, detail.polarity, one, sample === "top" ? i + 1 : 0))] : [];
  });

  const download = (detail) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([JSON.stringify(detail, null, 1)], { type: "application/json" })), download: `${detail.unit.replaceAll(":", "_")}.json` });
    link.click();
    URL.revokeObjectURL(link.href);
  };

  const show = (row, detail) => {
    const FIRST = 6;
    const units = lorascope.data.units;
    const article = document.getElementById("unit");
    const builders = contexts(units.unit[row], detail, units.n_fired[row]);
    const grid = detail.decoder ? make("div", { class: "grid" }) : "";
    article.replaceChildren(make("h2", {}, visible(units.explanation[row] || "No explanation")),
      make("p", { class: "soft" }, `${units.unit[row]} · explained by ${visible(units.explainer[row] || "nobody")} `, make("button", { type: "button", onclick: () => download(detail) }, "download JSON")),
      facts(row), detail.reasoning ? make("p", {}, visible(detail.reasoning)) : "",
      ...effects(detail, units.kind[row]),
      ...(detail.decoder ? [make("h3", {}, "Decoder weights by projection and layer"), grid] : []),
      ...builders.slice(0, FIRST).map((build) => build()));
    article.scrollTop = 0;
    article.setAttribute("aria-busy", "true");
    const turn = (shown += 1);
    marked = null;
    requestAnimationFrame(() => setTimeout(() => {
      if (turn !== shown) return;
      if (detail.decoder) grid.append(...heat(detail));
      article.append(...builders.slice(FIRST).map((build) => build()));
      article.removeAttribute("aria-busy");
      if (marked) mark(...marked);
    }));
  };

  // The context whose rollout stands beside it.
  const mark = (rollout, position) => {
    marked = [rollout, position];
    for (const one of document.querySelectorAll("#unit .context")) one.classList.toggle("current", Number(one.dataset.rollout) === rollout && Number(one.dataset.position) === position);
  };
  return { show, mark };
})();

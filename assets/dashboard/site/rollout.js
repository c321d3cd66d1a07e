// The full rollout: every token, coloured by the unit where its activation is known.
"use strict";
lorascope.rollout = (() => {
  const { make, token, number } = lorascope;
  const ROLES = ["system", "user", "think", "answer", "template"];
  const LEVELS = 127;
  const BINS = 160;
  let shown = { unit: "", rollout: -1, peaks: [], spans: new Map() };
  let at = -1;

  // Activations of this unit in this rollout: everywhere in its full rollouts (in 127 steps), exact in its contexts.
  const known = (detail, rollout, full) => {
    const values = new Map();
    const exact = new Set();
    const place = full.places[detail.unit]?.[rollout];
    if (place) {
      const [offset, length, scale] = place;
      for (let i = 0; i < length; i += 1) if (full.arrays.levels[offset + i]) values.set(i, (full.arrays.levels[offset + i] / LEVELS) * scale);
    }
    for (const one of detail.contexts.filter((context) => context.rollout === rollout)) one.values.forEach((value, i) => { if (value) { values.set(one.start + i, value * detail.polarity); exact.add(one.start + i); } });
    return { values, exact, everywhere: Boolean(place) };
  };

  const mark = (span) => {
    document.querySelectorAll("#rollout .peak").forEach((old) => old.classList.remove("peak"));
    span.scrollIntoView({ block: "center" });
    span.classList.add("peak");
  };

  // To the n-th place where the unit fires; the address follows.
  const visit = (place) => {
    const { unit, rollout, peaks, spans } = shown;
    at = place;
    mark(spans.get(peaks[at]));
    document.getElementById("place").textContent = `${at + 1} of ${peaks.length}`;
    lorascope.follow({ unit, rollout, token: peaks[at] });
  };

  const jump = (by) => {
    const { length } = shown.peaks;
    if (length) visit(at < 0 && by < 0 ? length - 1 : (at + by + length) % length);
  };

  // The whole rollout at a glance: the strongest activation of each stretch of it, and a click goes there.
  const strip = (peaks, size, tokens, detail) => {
    const best = new Map();
    peaks.forEach((token, place) => {
      const bin = Math.floor((token / tokens) * BINS);
      if (!best.has(bin) || size(token) > size(peaks[best.get(bin)])) best.set(bin, place);
    });
    return make("div", { class: detail.polarity < 0 ? "strip minus" : "strip", "aria-hidden": "true" }, [...best].map(([bin, place]) => {
      const tick = make("i", { title: `token ${peaks[place]}: ${number(size(peaks[place]), 2)}`, onclick: () => visit(place) });
      tick.style.left = `${(100 * bin) / BINS}%`;
      tick.style.height = `${Math.max(15, (100 * size(peaks[place])) / detail.max)}%`;
      return tick;
    }));
  };

  // Rollouts that its contexts come from, strongest first, to read one after the other.
  const choice = (detail, rollout) => {
    const best = new Map();
    for (const one of detail.contexts) if (!(best.get(one.rollout) >= one.value)) best.set(one.rollout, one.value);
    if (!best.has(rollout)) best.set(rollout, null);
    const options = [...best].map(([id, value]) => make("option", { value: id, selected: id === rollout }, `rollout ${id}${value ? `, up to ${number(value)}` : ""}`));
    return make("select", { "aria-label": "Rollouts of this unit", onchange: (event) => lorascope.go({ unit: detail.unit, rollout: event.target.value }) }, options);
  };

  // One element per stretch of the same role, so that system and user text can be dimmed.
  const stretches = (roles) => {
    const found = [];
    for (let i = 0; i < roles.length; i += 1) {
      if (i && roles[i] === roles[i - 1]) found.at(-1).end = i + 1;
      else found.push({ role: ROLES[roles[i]], first: i, end: i + 1 });
    }
    return found;
  };

  const show = (rollout, text, detail, full, position) => {
    const { values, exact, everywhere } = known(detail, rollout, full);
    const floor = detail.decoder ? 0 : detail.threshold; // a latent is 0 where it does not fire
    const spans = new Map();
    const spanOf = (i) => {
      const value = values.get(i) ?? 0;
      const span = token(text.pieces[i], value, detail.max, `token ${i}${value ? `: ${exact.has(i) ? number(value, 4) : `about ${number(value, 2)}`}` : ""}`, floor);
      spans.set(i, span);
      return span;
    };
    const wanted = (i) => i === position || Math.abs(values.get(i) ?? 0) > Math.min(floor, lorascope.FLOOR * detail.max);
    const body = stretches(text.roles).map(({ role, first, end }) => make("span", { class: role }, lorascope.runs(text.pieces, first, end, wanted, spanOf)));
    // Where the unit fires: its own polarity only, each stretch of neighbours once, at its strongest token.
    const size = (i) => (values.get(i) ?? 0) * detail.polarity;
    const peaks = [...spans.keys()].filter((i) => size(i) > floor && size(i) >= size(i - 1) && size(i) > size(i + 1));
    shown = { unit: detail.unit, rollout, peaks, spans };
    at = peaks.indexOf(position);
    const signs = [-1, 1].filter((sign) => sign === detail.polarity || [...values.values()].some((value) => value * sign > 0)).map((sign) => (sign < 0 ? "negative" : "positive"));
    const note = everywhere ? "every captured token carries this unit's activation" : "only this unit's stored contexts are coloured";
    document.getElementById("rollout").replaceChildren(
      make("h2", {}, `Rollout ${rollout}`), make("p", { class: "soft" }, `${text.pieces.length.toLocaleString("en")} tokens; ${note} `, lorascope.legend(detail.max, signs)),
      make("div", { class: "bar" }, choice(detail, rollout), make("button", { type: "button", title: "Key: p", onclick: () => jump(-1) }, "previous"), make("button", { type: "button", title: "Key: n", onclick: () => jump(1) }, "next activation"),
        make("span", { id: "place", class: "soft" }, peaks.length === 1 ? "1 activation" : `${peaks.length} activations`), strip(peaks, size, text.pieces.length, detail)),
      make("p", { class: "text" }, body));
    if (spans.has(position)) mark(spans.get(position));
    else document.getElementById("rollout").scrollTop = 0;
  };
  return { show, jump };
})();

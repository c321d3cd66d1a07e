// The full rollout: every token, coloured by the unit where its activation is known.
"use strict";
lorascope.rollout = (() => {
  const { make, token, number } = lorascope;
  const ROLES = ["system", "user", "think", "answer", "template"];
  const LEVELS = 127;
  let firing = [];
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

  const jump = (by) => {
    if (!firing.length) return;
    at = at < 0 && by < 0 ? firing.length - 1 : (at + by + firing.length) % firing.length;
    mark(firing[at]);
    document.getElementById("place").textContent = `${at + 1} of ${firing.length}`;
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
    const spans = new Map();
    const spanOf = (i) => {
      const value = values.get(i) ?? 0;
      const span = token(text.pieces[i], value, detail.max, `token ${i}${value ? `: ${exact.has(i) ? number(value, 4) : `about ${number(value, 2)}`}` : ""}`);
      spans.set(i, span);
      return span;
    };
    const wanted = (i) => i === position || Math.abs(values.get(i) ?? 0) > lorascope.FLOOR * detail.max;
    const body = stretches(text.roles).map(({ role, first, end }) => make("span", { class: role }, lorascope.runs(text.pieces, first, end, wanted, spanOf)));
    // Where the unit fires: its own polarity only, each stretch of neighbours once, at its strongest token.
    const own = [...spans.keys()].filter((i) => (values.get(i) ?? 0) * detail.polarity > lorascope.FLOOR * detail.max);
    const peaks = own.filter((i) => { const size = (j) => (values.get(j) ?? 0) * detail.polarity; return size(i) >= size(i - 1) && size(i) > size(i + 1); });
    firing = peaks.map((i) => spans.get(i));
    at = peaks.indexOf(position);
    const note = everywhere ? "every token carries this unit's activation" : "coloured in this unit's stored contexts only";
    document.getElementById("rollout").replaceChildren(
      make("h2", {}, `Rollout ${rollout}`), make("p", { class: "soft" }, `${text.pieces.length} tokens; ${note}; purple and dotted: negative`),
      make("div", { class: "bar" }, make("button", { type: "button", onclick: () => jump(-1) }, "previous"), make("button", { type: "button", onclick: () => jump(1) }, "next activation"), make("span", { id: "place", class: "soft" }, firing.length === 1 ? "1 activation" : `${firing.length} activations`)),
      make("p", { class: "text" }, body));
    if (spans.has(position)) mark(spans.get(position));
    else document.getElementById("rollout").scrollTop = 0;
  };
  return { show, jump };
})();

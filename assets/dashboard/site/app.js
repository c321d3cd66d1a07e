// State lives in the address: #unit=latent:448&rollout=745&token=4652.
"use strict";
{
  const state = () => new URLSearchParams(location.hash.slice(1));
  const hash = (wanted) => `#${new URLSearchParams(wanted).toString().replaceAll("%3A", ":")}`;
  // An equal address fires no event, but may be wanted from another view.
  lorascope.go = (wanted) => { if (location.hash === hash(wanted)) show().catch(failed); else location.hash = hash(wanted); };
  lorascope.address = (wanted) => location.href.split("#")[0] + hash(wanted);
  // The same page at another token: the address follows, nothing is drawn anew.
  lorascope.follow = (wanted) => history.replaceState(null, "", hash(wanted));

  // Browsers lend the clipboard to https, localhost and files; elsewhere the old command still works.
  const write = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.body.appendChild(lorascope.make("textarea", {}));
    area.value = text;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done ? undefined : Promise.reject(new Error("refused"));
  };

  lorascope.copy = async (text, button) => {
    const name = (button.dataset.name ??= button.textContent);
    button.textContent = await write(text).then(() => "copied", () => "cannot copy");
    setTimeout(() => { button.textContent = name; }, 1500);
  };

  const chunkOf = (kind, index, size) => `${kind}-${String(Math.floor(index / size)).padStart(4, "0")}`;

  // Where there is room for one of both: unit or rollout.
  const side = (rollout) => {
    document.body.classList.toggle("rollout", rollout);
    document.getElementById("show-rollout").textContent = rollout ? "Unit" : "Rollout";
  };

  // A sentence where the unit or the rollout would stand.
  const say = (place, text) => document.getElementById(place).replaceChildren(lorascope.make("p", { class: "empty" }, text));

  let current = null;
  const show = async () => {
    const { units, sizes, rollouts } = lorascope.data;
    const wanted = state();
    const row = wanted.has("unit") ? units.unit.indexOf(wanted.get("unit")) : lorascope.list.first() ?? 0;
    if (row !== current) current = null;
    if (row < 0) { say("unit", `There is no unit ${wanted.get("unit")}.`); document.getElementById("rollout").replaceChildren(); return; }
    lorascope.list.choose(row);
    document.body.classList.remove("list");
    const [words, chunk] = await Promise.all([lorascope.vocabulary(), lorascope.load(chunkOf("units", row, sizes.units))]);
    if (wanted.toString() !== state().toString()) return;
    const detail = lorascope.detail(chunk, row % sizes.units, words);
    if (row !== current) lorascope.unit.show(row, detail);
    current = row;
    side(wanted.has("rollout"));
    const rollout = Number(wanted.get("rollout") ?? detail.contexts[0]?.rollout ?? -1);
    const place = rollouts.indexOf(rollout);
    if (place < 0) { say("rollout", wanted.has("rollout") ? `Rollout ${rollout} is not in this dashboard.` : "This unit has no contexts."); return; }
    const [texts, full] = await Promise.all([lorascope.load(chunkOf("rollouts", place, sizes.rollouts)), lorascope.load(chunkOf("full", row, sizes.units))]);
    if (wanted.toString() !== state().toString()) return;
    const position = wanted.get("token") ?? detail.contexts.find((one) => one.rollout === rollout)?.position;
    lorascope.unit.mark(rollout, Number(position));
    lorascope.rollout.show(rollout, lorascope.text(texts, place % sizes.rollouts, words), detail, full, position === undefined ? null : Number(position));
  };

  const failed = (error) => { current = null; say("unit", `This cannot be shown: ${error.message}`); };

  // Copied without its data, the page would stay empty.
  addEventListener("load", () => { if (!lorascope.data) failed(new Error("data/index.js is missing or damaged")); });

  const keys = { j: () => lorascope.list.step(1), ArrowDown: () => lorascope.list.step(1), k: () => lorascope.list.step(-1), ArrowUp: () => lorascope.list.step(-1), n: () => lorascope.rollout.jump(1), p: () => lorascope.rollout.jump(-1), "/": () => document.getElementById("search").focus(), "?": () => document.getElementById("help").showModal() };

  lorascope.start = () => {
    const { model, units } = lorascope.data;
    document.getElementById("summary").textContent = `${model} · ${units.unit.length.toLocaleString("en")} units · ${lorascope.data.rollouts.length.toLocaleString("en")} rollouts`;
    document.title = `Features of ${model}`;
    lorascope.list.start();
    addEventListener("hashchange", () => show().catch(failed));
    addEventListener("keydown", (event) => {
      if (event.target.matches("input, select, dialog *")) { if (event.key === "Escape") event.target.blur(); return; }
      const action = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
      if (action) { event.preventDefault(); action(); }
    });
    document.getElementById("show-list").addEventListener("click", () => { document.body.classList.toggle("list"); lorascope.list.draw(); });
    document.getElementById("show-rollout").addEventListener("click", () => { document.body.classList.remove("list"); side(!document.body.classList.contains("rollout")); });
    document.getElementById("show-help").addEventListener("click", () => document.getElementById("help").showModal());
    show().catch(failed);
  };
}

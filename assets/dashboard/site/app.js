// State lives in the address: #unit=latent:448&rollout=745&token=4652.
"use strict";
{
  const state = () => new URLSearchParams(location.hash.slice(1));
  lorascope.go = (wanted) => { location.hash = new URLSearchParams(wanted).toString().replaceAll("%3A", ":"); };

  lorascope.copy = async (text, button) => {
    try { await navigator.clipboard.writeText(text); button.textContent = "copied"; } catch { button.textContent = "cannot copy"; }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };

  const chunkOf = (kind, index, size) => `${kind}-${String(Math.floor(index / size)).padStart(4, "0")}`;

  const show = async () => {
    const { units, sizes, rollouts } = lorascope.data;
    const wanted = state();
    const row = wanted.has("unit") ? units.unit.indexOf(wanted.get("unit")) : lorascope.list.first() ?? 0;
    const article = document.getElementById("unit");
    if (row < 0) { article.replaceChildren(lorascope.make("p", { class: "empty" }, `There is no unit ${wanted.get("unit")}.`)); return; }
    lorascope.list.choose(row);
    document.body.classList.remove("list");
    const [words, chunk] = await Promise.all([lorascope.vocabulary(), lorascope.load(chunkOf("units", row, sizes.units))]);
    if (wanted.toString() !== state().toString()) return;
    const detail = lorascope.detail(chunk, row % sizes.units, words);
    lorascope.unit.show(row, detail);
    document.body.classList.toggle("rollout", wanted.has("rollout"));
    const rollout = Number(wanted.get("rollout") ?? detail.contexts[0]?.rollout ?? -1);
    const place = rollouts.indexOf(rollout);
    if (place < 0) { document.getElementById("rollout").replaceChildren(lorascope.make("p", { class: "empty" }, wanted.has("rollout") ? `Rollout ${rollout} is not in this dashboard.` : "This unit has no contexts.")); return; }
    const [texts, full] = await Promise.all([lorascope.load(chunkOf("rollouts", place, sizes.rollouts)), lorascope.load(chunkOf("full", row, sizes.units))]);
    if (wanted.toString() !== state().toString()) return;
    const position = wanted.get("token") ?? detail.contexts.find((one) => one.rollout === rollout)?.position;
    lorascope.rollout.show(rollout, lorascope.text(texts, place % sizes.rollouts, words), detail, full, position === undefined ? null : Number(position));
  };

  const failed = (error) => document.getElementById("unit").replaceChildren(lorascope.make("p", { class: "empty" }, `This cannot be shown: ${error.message}`));

  const keys = { j: () => lorascope.list.step(1), ArrowDown: () => lorascope.list.step(1), k: () => lorascope.list.step(-1), ArrowUp: () => lorascope.list.step(-1), n: () => lorascope.rollout.jump(1), p: () => lorascope.rollout.jump(-1), "/": () => document.getElementById("search").focus(), "?": () => document.getElementById("help").showModal() };

  lorascope.start = () => {
    const { model, units } = lorascope.data;
    document.getElementById("summary").textContent = `${model} · ${units.unit.length} units · ${lorascope.data.rollouts.length} rollouts`;
    document.title = `Features of ${model}`;
    lorascope.list.start();
    addEventListener("hashchange", () => show().catch(failed));
    addEventListener("keydown", (event) => {
      if (event.target.matches("input, select, dialog *")) { if (event.key === "Escape") event.target.blur(); return; }
      const action = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
      if (action) { event.preventDefault(); action(); }
    });
    document.getElementById("show-list").addEventListener("click", () => document.body.classList.toggle("list"));
    document.getElementById("show-rollout").addEventListener("click", () => document.body.classList.toggle("rollout"));
    document.getElementById("show-help").addEventListener("click", () => document.getElementById("help").showModal());
    show().catch(failed);
  };
}

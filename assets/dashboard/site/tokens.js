// Tokens as coloured text: strength by colour depth, sign by colour and underline, exact value on hover.
"use strict";

// Controls, bidi marks, invisible characters and halves of a pair would hide, reorder or fake text: show them as escapes.
lorascope.visible = (piece) => piece.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}\ud800-\udfff]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);

// A token by itself, where leading and trailing space is half of what it says.
lorascope.lone = (piece) => lorascope.visible(piece.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "↵").replaceAll("\t", "⇥"));

lorascope.FLOOR = 0.02;

// Coloured by its strength; underlined where the unit fires, above its threshold.
lorascope.token = (piece, value, scale, title, threshold = 0) => {
  const strength = Math.min(1, Math.abs(value) / (scale || 1));
  const text = piece.replace(/\n+$/, "");
  const span = lorascope.make("span", { title }, lorascope.visible(text));
  // Line ends have no width to be coloured: they stand after the span, and the style puts a sign in it.
  if (text !== piece) span.classList.add("line");
  if (strength > lorascope.FLOOR) {
    span.style.backgroundColor = `rgba(var(--${value < 0 ? "negative" : "positive"}), ${(0.1 + 0.6 * strength).toFixed(2)})`;
  }
  if (Math.abs(value) > threshold) span.classList.add("fires", ...(value < 0 ? ["minus"] : []));
  return span;
};

// Spans for tokens that `wanted(i)`, plain text for the runs between them: ten thousand tokens stay light.
lorascope.runs = (pieces, first, last, wanted, spanOf) => {
  const nodes = [];
  let plain = "";
  for (let i = first; i < last; i += 1) {
    if (!wanted(i)) { plain += pieces[i]; continue; }
    if (plain) nodes.push(lorascope.visible(plain));
    nodes.push(spanOf(i));
    plain = /\n*$/.exec(pieces[i])[0];
  }
  if (plain) nodes.push(lorascope.visible(plain));
  return nodes;
};

// What the colours mean, with the strength at their ends.
lorascope.legend = (most, signs = ["negative", "positive"]) => lorascope.make("span", { class: "legend" }, signs.map((sign) => lorascope.make("span", {}, lorascope.make("i", { class: sign }), ` ${sign} to ${lorascope.number(sign === "negative" ? -most : most)}`)));

lorascope.number = (value, digits = 3) => (value === null || value === undefined ? "–" : String(Number(Number(value).toPrecision(digits))));
lorascope.percent = (value) => (value === null || value === undefined ? "–" : value === 0 ? "0 %" : `${lorascope.number(100 * value)} %`);

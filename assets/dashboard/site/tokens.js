// Tokens as coloured text: strength by colour depth, sign by colour and underline, exact value on hover.
"use strict";

// Control characters and bidi marks would hide or reorder text: show them as escapes.
lorascope.visible = (piece) => piece.replace(/[\u0000-\u0008\u000b-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

lorascope.FLOOR = 0.02;

lorascope.token = (piece, value, scale, title) => {
  const strength = Math.min(1, Math.abs(value) / (scale || 1));
  const span = lorascope.make("span", { title }, lorascope.visible(piece));
  if (strength > lorascope.FLOOR) {
    span.style.backgroundColor = `rgba(var(--${value < 0 ? "negative" : "positive"}), ${(0.1 + 0.6 * strength).toFixed(2)})`;
    span.className = value < 0 ? "fires minus" : "fires";
  }
  return span;
};

// Spans for tokens that `wanted(i)`, plain text for the runs between them: ten thousand tokens stay light.
lorascope.runs = (pieces, first, last, wanted, spanOf) => {
  const nodes = [];
  let plain = "";
  for (let i = first; i < last; i += 1) {
    if (!wanted(i)) { plain += pieces[i]; continue; }
    if (plain) nodes.push(lorascope.visible(plain));
    plain = "";
    nodes.push(spanOf(i));
  }
  if (plain) nodes.push(lorascope.visible(plain));
  return nodes;
};

lorascope.number = (value, digits = 3) => (value === null || value === undefined ? "–" : String(Number(Number(value).toPrecision(digits))));
lorascope.percent = (value) => (value === null || value === undefined ? "–" : value === 0 ? "0 %" : `${lorascope.number(100 * value)} %`);

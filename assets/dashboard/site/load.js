// Data arrives as script files, because `fetch` is refused on file:// pages; chunks are gzip as UTF-16 text (chunks.py).
"use strict";
const lorascope = { data: null, waiting: new Map(), loaded: new Map() };

lorascope.index = (text) => { lorascope.data = JSON.parse(text); lorascope.start(); };

// 15 bits a character, from U+4000 on, first bit first.
lorascope.bytes = (text, count) => {
  const bytes = new Uint8Array(count);
  let held = 0;
  let bits = 0;
  for (let i = 0, out = 0; out < count; i += 1) {
    held = (held << 15) | (text.charCodeAt(i) - 0x4000);
    bits += 15;
    while (bits >= 8 && out < count) { bits -= 8; bytes[out] = held >> bits; out += 1; }
    held &= (1 << bits) - 1;
  }
  return bytes;
};

// A chunk's header with its arrays as typed arrays; float16 stays as its bits, for `half`.
lorascope.unpack = (buffer) => {
  const TYPES = { int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, float16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const [name, [type, offset, count]] of Object.entries(header.arrays)) header.arrays[name] = new TYPES[type](buffer, 4 + length + offset, count);
  return header;
};

lorascope.half = (bits) => {
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
  return bits & 32768 ? -size : size;
};

lorascope.chunk = (name, count, packed) => {
  const { resolve, reject } = lorascope.waiting.get(name);
  lorascope.waiting.delete(name);
  const stream = new Blob([lorascope.bytes(packed, count)]).stream().pipeThrough(new DecompressionStream("gzip"));
  new Response(stream).arrayBuffer().then((buffer) => resolve(lorascope.unpack(buffer))).catch(reject);
};

// A chunk's content; at most `KEPT` stay in memory, the least recently used go first.
lorascope.load = (name) => {
  const KEPT = 12;
  const known = lorascope.loaded.get(name);
  if (known) { lorascope.loaded.delete(name); lorascope.loaded.set(name, known); return known; }
  const promise = new Promise((resolve, reject) => {
    lorascope.waiting.set(name, { resolve, reject });
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onload = () => script.remove();
    script.onerror = () => { lorascope.loaded.delete(name); reject(new Error(`data/${name}.js is missing`)); };
    document.head.append(script);
  });
  lorascope.loaded.set(name, promise);
  if (lorascope.loaded.size > KEPT) lorascope.loaded.delete(lorascope.loaded.keys().next().value);
  return promise;
};

// The texts that numbers of pieces stand for; loaded once.
lorascope.vocabulary = () => { lorascope.words ??= lorascope.load("pieces-0000").then((chunk) => chunk.pieces); return lorascope.words; };

// A unit of a chunk with its contexts as objects.
lorascope.detail = (chunk, place, words) => {
  const columns = chunk.arrays;
  const first = chunk.units.slice(0, place).reduce((sum, unit) => sum + unit.contexts, 0);
  let offset = 0;
  for (let i = 0; i < first; i += 1) offset += columns.length[i];
  const contexts = [];
  for (let i = first; i < first + chunk.units[place].contexts; i += 1) {
    const end = offset + columns.length[i];
    contexts.push({
      sample: ["top", "quantile", "silent"][columns.sample[i]], rollout: columns.rollout[i], position: columns.position[i], start: columns.start[i], value: columns.value[i],
      pieces: Array.from(columns.pieces.subarray(offset, end), (piece) => words[piece]), values: Array.from(columns.values.subarray(offset, end), lorascope.half),
    });
    offset = end;
  }
  return { ...chunk.units[place], contexts };
};

// A rollout of a chunk: texts and roles of its tokens.
lorascope.text = (chunk, place, words) => {
  const first = chunk.lengths.slice(0, place).reduce((sum, length) => sum + length, 0);
  const end = first + chunk.lengths[place];
  return { pieces: Array.from(chunk.arrays.pieces.subarray(first, end), (piece) => words[piece]), roles: chunk.arrays.roles.subarray(first, end) };
};

// An element with attributes, classes and children; text only ever enters as text nodes.
lorascope.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
};

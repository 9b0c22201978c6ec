const data = JSON.parse(document.getElementById("data").textContent);
const MEASURES = {
  weights: "How much of its attention a token gives to each other one; every row sums to 100 %.",
  value_weighted: "Each weight times the length of the value it weighs, after the head's output matrix, as a share of the"
    + " row (Kobayashi et al. 2020, arXiv 2004.10102): what is looked at and also used.",
};
// Beside the heads of a layer: their mean, and what has come through all layers so far.
const SUMMARIES = {
  mean: {name: layer => `Layer ${layer + 1}, mean of all heads`, note: "", reads: ["reads", ""], isRead: "is read mostly by"},
  rollout: {
    name: layer => layer ? `Rollout through layers 1 to ${layer + 1}` : "Rollout through layer 1",
    note: "How much of each token has arrived here: half of each layer's mean weights and half of the token's own state,"
      + " multiplied over the layers (attention rollout, Abnar & Zuidema 2020, arXiv 2005.00928).",
    reads: ["receives", "from "], isRead: "goes mostly to",
  },
  relevance: {
    name: layer => layer ? `Relevance through layers 1 to ${layer + 1}` : "Relevance through layer 1",
    note: "What the output shown above depends on: weights times their gradients where positive, mean of the heads, added up"
      + " over the layers, as a share of the row (gradient-weighted relevance, Chefer et al. 2021, arXiv 2103.15679).",
    reads: ["receives", "from "], isRead: "goes mostly to",
  },
};
const MOST_PIXELS = 16e6;  // of one canvas, on phones
const LEAST_EFFECT = .01;  // nats that a full bar stands for at least: smaller effects must look small
const page = {measure: "weights", drawing: "map", beside: false, live: null, views: [], chosen: {}};  // live: set by live.js, where heads can be switched

// ------------------------------------------------------------------------------------------------------------ shades

const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
const darkScreen = matchMedia("(prefers-color-scheme: dark)");
let palette;

// Weights arrive as bytes: 255 times their square root, which is also how far along the scale a cell is shaded.
const weightOf = byte => (byte / 255) ** 2;
const byteOf = weight => weight && Math.max(1, Math.round(255 * Math.sqrt(weight)));
function makePalette() {
  const {shades, nothing} = darkScreen.matches ? data.dark : data.light;
  const stops = shades.map(rgb);
  const colours = Array.from({length: 256}, (_, byte) => {
    if (byte === 0) return rgb(nothing);
    const along = byte / 255 * (stops.length - 1), from = Math.min(Math.floor(along), stops.length - 2);
    return stops[from].map((low, i) => Math.round(low + (stops[from + 1][i] - low) * (along - from)));
  });
  const bright = ([r, g, b]) => .299 * r + .587 * g + .114 * b > 140;
  palette = {
    css: colours.map(colour => `rgb(${colour})`),
    ink: colours.map(colour => bright(colour) ? "#16202c" : "#fff"),
    pixels: Uint32Array.from(colours, ([r, g, b]) => 0xff000000 | b << 16 | g << 8 | r),  // bytes r, g, b, a
    gap: getComputedStyle(document.documentElement).getPropertyValue("--gap"),
  };
}

// ------------------------------------------------------------------------------------------------------------- words

function percent(byte) {
  const value = 100 * weightOf(byte);
  return byte === 0 ? "0 %" : value < 1 ? "under 1 %" : `${Math.round(value)} %`;
}
const probability = p => p < .001 ? "under 0.1 %" : p > .999 ? "over 99.9 %" : `${(100 * p).toFixed(1)} %`;
const signed = x => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(Math.abs(x) < .1 ? 3 : 2)}`;
const headName = (layer, head) => `Layer ${layer + 1}, head ${head + 1}`;

function add(parent, tag, options = {}, text) {
  const element = Object.assign(document.createElement(tag), options);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function drawScale() {
  const scale = document.getElementById("scale");
  scale.replaceChildren();
  for (const [value, label] of [[0, "none (masked)"], [.002, "under 1 %"], [.05, "5 %"], [.2, "20 %"], [.5, "50 %"], [1, "100 %"]]) {
    const item = add(scale, "span");
    add(item, "i").style.background = palette.css[byteOf(value)];
    item.append(label);
  }
}

// ------------------------------------------------------------------------------------------------------------- views

// One kind of attention of one text: small maps of all heads, and one of them large.
class View {
  constructor(parent, view) {
    Object.assign(this, {view, Q: view.queries.length, K: view.keys.length, query: 0, key: null});
    const decode = text => text === null ? null : Uint8Array.from(atob(text), char => char.charCodeAt(0));
    this.bytes = {weights: decode(view.weights), value_weighted: decode(view.value_weighted)};
    this.through = {rollout: decode(view.rollout ?? null), relevance: decode(view.relevance ?? null)};
    this.means = {};
    this.canSwitch = page.live !== null && view.value_weighted !== null;
    const {layer, head} = page.chosen[view.kind] ?? {};
    this.layer = layer < view.layers ? layer : view.layers - 1;
    this.head = this.columns().includes(head) ? head : view.heads > 1 ? "mean" : 0;
    this.lay(parent);
    this.drawHeads();
    this.build();
  }
  lay(parent) {
    const section = add(parent, "section", {className: "view"});
    add(section, "h2", {}, this.view.title);
    add(section, "p", {className: "muted"}, this.view.caption);
    this.parts = add(section, "div", {className: "parts"});
    const small = add(this.parts, "div", {className: "small", hidden: this.view.layers * this.columns().length === 1});
    add(add(small, "h3", {}, "Heads "), "span", {className: "muted hint"}, "(choose one to enlarge it)");
    this.heads = add(small, "div", {className: "heads"});
    this.legend = add(small, "p", {className: "legend", hidden: this.view.loss_without === null});
    this.most = Math.max(LEAST_EFFECT, ...(this.view.loss_without ?? []).flat().map(Math.abs));
    add(this.legend, "i");
    this.legend.append(`rise of the output's loss without the head; a full bar is ${this.most.toPrecision(2)} nats`);
    if (this.view.kind === "cross")
      add(small, "p", {className: "legend"}, "Rollout and relevance are of self-attention alone: see the encoder and the decoder.");
    this.large = add(this.parts, "div", {className: "large"});
    const headline = add(this.large, "div", {className: "headline"});
    this.title = add(headline, "h3");
    this.effect = add(headline, "span", {className: "muted"});
    this.switch = add(headline, "button", {type: "button", className: "switch", hidden: true});
    this.switch.onclick = () => page.live.toggle(this.view.kind, this.layer, this.head);
    this.note = add(this.large, "p", {className: "muted note"});
    this.frame = add(this.large, "div", {className: "frame"});
    const detail = add(this.parts, "div", {className: "detail"});
    this.read = add(detail, "p", {className: "read"});
    this.read.setAttribute("aria-live", "polite");
    this.strip = add(detail, "div", {className: "strip"});
  }
  // (Q * K) bytes of one head, row by row.
  map(layer, head) {
    if (this.through[head]) return this.through[head].subarray(layer * this.Q * this.K, (layer + 1) * this.Q * this.K);
    const measure = this.bytes[page.measure] ? page.measure : "weights";
    if (head === "mean") return this.means[`${measure}/${layer}`] ??= this.mean(layer);
    const size = this.Q * this.K, start = (layer * this.view.heads + head) * size;
    return this.bytes[measure].subarray(start, start + size);
  }
  mean(layer) {
    const sum = new Float32Array(this.Q * this.K);
    for (let head = 0; head < this.view.heads; head++)
      this.map(layer, head).forEach((byte, cell) => { sum[cell] += weightOf(byte); });
    return Uint8Array.from(sum, total => byteOf(total / this.view.heads));
  }
  // Names of summaries and numbers of heads. Summaries come first, where a narrow screen shows them without scrolling.
  columns() {
    const {heads} = this.view;
    const has = {mean: heads > 1, rollout: this.through.rollout, relevance: this.through.relevance};
    return [...Object.keys(SUMMARIES).filter(name => has[name]), ...Array(heads).keys()];
  }
  name(layer, head) {
    if (SUMMARIES[head]) return SUMMARIES[head].name(layer);
    return this.view.layers * this.view.heads === 1 ? "Weights" : headName(layer, head);
  }
  isOff(layer, head) { return page.live !== null && page.live.isOff(this.view.kind, layer, head); }
  loss(layer, head) { return this.view.loss_without?.[layer][head] ?? null; }

  drawHeads() {
    const columns = this.columns();
    this.heads.style.gridTemplateColumns = `max-content ${columns.map(head => `minmax(${SUMMARIES[head] ? 54 : 38}px, 1fr)`).join(" ")}`;
    add(this.heads, "span");
    for (const head of columns) add(this.heads, "span", {}, SUMMARIES[head] ? head : head + 1);
    for (let layer = 0; layer < this.view.layers; layer++) {
      add(this.heads, "span", {}, `layer ${layer + 1}`);
      for (const head of columns) this.drawHead(layer, head);
    }
    this.shadeHeads();
  }
  drawHead(layer, head) {
    const cell = add(this.heads, "div", {className: "cell"}), button = add(cell, "button", {type: "button"});
    const loss = this.loss(layer, head), off = this.isOff(layer, head);
    const label = this.name(layer, head) + (off ? ", switched off" : "")
      + (loss === null ? "" : `, loss ${signed(loss)} without it`);
    cell.classList.toggle("off", off);
    button.setAttribute("aria-label", label);
    button.title = label;
    button.style.aspectRatio = Math.min(2, Math.max(.5, this.K / this.Q));
    button.dataset.at = `${layer}/${head}`;
    button.onclick = () => this.choose(layer, head);
    add(button, "canvas", {width: this.K, height: this.Q});
    if (this.view.loss_without === null) return;
    const bar = add(cell, "span", {className: "loss"});
    bar.classList.toggle("gain", loss < 0);
    if (loss !== null) add(bar, "i").style.width = `${100 * Math.abs(loss) / this.most}%`;
    else bar.style.visibility = "hidden";
  }
  shadeHeads() {
    for (const button of this.heads.querySelectorAll("button")) {
      const [layer, head] = button.dataset.at.split("/").map(part => SUMMARIES[part] ? part : Number(part));
      const pen = button.firstChild.getContext("2d"), image = pen.createImageData(this.K, this.Q);
      const pixels = new Uint32Array(image.data.buffer);
      this.map(layer, head).forEach((byte, cell) => { pixels[cell] = palette.pixels[byte]; });
      pen.putImageData(image, 0, 0);
    }
  }
  // Side by side, the same head of both is shown, if both have it.
  choose(layer, head) {
    page.chosen[this.view.kind] = {layer, head};
    for (const view of page.views) {
      const same = view.view.kind === this.view.kind && layer < view.view.layers && view.columns().includes(head);
      if (view !== this && !(page.beside && same)) continue;
      Object.assign(view, {layer, head});
      view.paint();
    }
  }

  build() {
    const grid = this.grid = add(this.frame, "div", {className: "map", tabIndex: 0});
    grid.setAttribute("role", "application");
    grid.setAttribute("aria-label", "Large map; the arrow keys move from cell to cell");
    add(grid, "div", {className: "corner"}, this.view.corner);
    this.top = add(grid, "div", {className: "top"});
    this.left = add(grid, "div", {className: "left"});
    this.canvas = add(grid, "canvas");
    this.tops = this.view.keys.map(token => add(this.top, "span", {title: token}, token));
    this.lefts = this.view.queries.map(token => add(this.left, "span", {title: token}, token));
    this.chips = this.view.keys.map((token, key) => add(this.strip, "span", {onclick: () => this.point(this.query, key)}, token));
    this.lefts.forEach((label, query) => { label.onclick = () => this.point(query, null); });
    const at = event => this.point(this.index(event.offsetY, this.Q), this.index(event.offsetX, this.K));
    this.canvas.onpointermove = event => { if (event.pointerType === "mouse") at(event); };
    this.canvas.onclick = at;
    grid.onkeydown = event => this.move(event);
    this.resize();
  }
  index(offset, count) { return Math.min(count - 1, Math.max(0, Math.floor(offset / this.cell))); }
  move(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    const clamp = (value, count) => Math.min(count - 1, Math.max(0, value));
    this.point(clamp(this.query + step[0], this.Q), clamp((this.key ?? 0) + step[1], this.K));
  }
  // Cells fill the room there is, but stay large enough to read a label and to touch.
  resize() {
    const arcs = page.drawing === "arcs";
    this.grid.hidden = this.strip.hidden = arcs;
    this.frame.classList.toggle("filled", arcs);
    if (arcs) this.parts.classList.remove("wide");
    else this.fit();
    this.paint();
  }
  fit() {
    const least = 18, most = 46;
    const room = () => Math.floor((this.large.clientWidth - this.left.offsetWidth - 4) / this.K);
    this.parts.classList.remove("wide");
    this.parts.classList.toggle("wide", room() < least);
    this.cell = Math.max(least, Math.min(most, room()));
    for (const label of this.lefts) label.style.height = label.style.lineHeight = `${this.cell}px`;
    for (const label of this.tops) {
      label.classList.remove("turned");
      Object.assign(label.style, {width: "auto", lineHeight: ""});
    }
    let turned = this.tops.map(label => label.offsetWidth > this.cell - 2);
    if (turned.filter(Boolean).length > this.K / 4) turned = turned.map(() => true);
    this.tops.forEach((label, i) => {
      label.classList.toggle("turned", turned[i]);
      Object.assign(label.style, {width: `${this.cell}px`, lineHeight: turned[i] ? `${this.cell}px` : ""});
    });
  }
  paint() {
    this.paintHeadline();
    if (page.drawing === "arcs") this.arcs ??= new Arcs(this.frame, this);
    if (this.arcs) this.arcs.grid.hidden = page.drawing !== "arcs";
    if (page.drawing === "arcs") { this.arcs.draw(); return; }
    this.paintMap();
    this.point(this.query, this.key);
  }
  paintMap() {
    const {canvas, cell, Q, K} = this, bytes = this.map(this.layer, this.head);
    const density = Math.min(Math.max(2, window.devicePixelRatio), Math.sqrt(MOST_PIXELS / (Q * K)) / cell);
    canvas.width = K * cell * density; canvas.height = Q * cell * density;
    canvas.style.width = `${K * cell}px`; canvas.style.height = `${Q * cell}px`;
    const pen = canvas.getContext("2d");
    pen.scale(density, density);
    pen.fillStyle = palette.gap;  // shows as hairlines between the cells
    pen.fillRect(0, 0, K * cell, Q * cell);
    pen.font = "11px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle";
    bytes.forEach((byte, i) => {
      const x = i % K * cell, y = Math.floor(i / K) * cell;
      pen.fillStyle = palette.css[byte];
      pen.fillRect(x + .5, y + .5, cell - 1, cell - 1);
      if (cell < 24 || weightOf(byte) < .045) return;
      pen.fillStyle = palette.ink[byte];
      pen.fillText(Math.round(100 * weightOf(byte)), x + cell / 2, y + cell / 2 + .5);
    });
  }
  paintHeadline() {
    const loss = this.loss(this.layer, this.head), off = this.isOff(this.layer, this.head);
    this.title.textContent = this.name(this.layer, this.head);
    this.effect.textContent = loss === null ? ""
      : Math.abs(loss) < .0005 ? "without it the loss hardly changes" : `without it the loss changes by ${signed(loss)}`;
    this.note.textContent = SUMMARIES[this.head]?.note ?? "";
    this.note.hidden = !this.note.textContent;
    this.switch.hidden = !this.canSwitch || SUMMARIES[this.head];
    this.switch.textContent = off ? "Switch this head on" : "Switch this head off";
    for (const button of this.heads.querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.dataset.at === `${this.layer}/${this.head}`);
  }
  repaint() { this.shadeHeads(); this.paint(); }
  // Show what one query reads: all of its row in the strip, and the pointed key (or the strongest) in words.
  point(query, key) {
    const row = this.map(this.layer, this.head).subarray(query * this.K, (query + 1) * this.K);
    const shown = key ?? row.indexOf(Math.max(...row));
    this.query = query; this.key = key;
    this.lefts.forEach((label, i) => label.classList.toggle("on", i === query));
    this.tops.forEach((label, i) => label.classList.toggle("on", i === shown));
    this.chips.forEach((chip, i) => {
      Object.assign(chip.style, {background: palette.css[row[i]], color: palette.ink[row[i]]});
      chip.title = percent(row[i]);
      chip.classList.toggle("on", i === shown);
    });
    this.tell(query, shown, key === null, row[shown]);
  }
  // One cell in words. mostly: it is the strongest of its row.
  tell(query, key, mostly, byte) {
    const [verb, from] = (SUMMARIES[this.head] ?? SUMMARIES.mean).reads;
    this.read.replaceChildren(this.view.before);
    add(this.read, "b", {}, this.view.queries[query]);
    if (mostly && byte === 0) { this.read.append(` ${verb} nothing`); return; }
    this.read.append(` ${verb} ${mostly ? "mostly " : ""}${from}`);
    add(this.read, "b", {}, this.view.keys[key]);
    this.read.append(`: ${percent(byte)}`);
  }
}

// ------------------------------------------------------------------------------------------------------------- texts

// Text, output, and the likeliest answers as bars. whole: the same text with all heads on, to compare with.
function drawSummary(article, shown, whole) {
  const summary = add(article, "div", {className: "summary"}), list = add(summary, "dl");
  const entry = (term, text) => { add(list, "dt", {}, term); add(list, "dd", {dir: "auto"}, text); };
  if (shown.run) entry("Run", shown.run);
  entry("Text", shown.text);
  entry("Output", shown.output);
  if (whole) entry("All heads on", whole.output);
  if (shown.answers.length) drawAnswers(summary, shown.answers, whole);
  if (whole) page.live.drawOff(add(summary, "div", {className: "off-list"}));
}
function drawAnswers(summary, answers, whole) {
  const rows = add(summary, "ul", {className: "answers"});
  add(rows, "h3", {}, "Likeliest answers").append(whole ? " (mark: with all heads on)" : "");
  for (const answer of answers) {
    const row = add(rows, "li"), before = whole?.answers.find(other => other.text === answer.text);
    add(row, "span", {className: "name", dir: "auto", title: answer.text}, answer.text);
    const track = add(row, "span", {className: "track"});
    add(track, "i").style.width = `${100 * answer.probability}%`;
    if (before) add(track, "u").style.left = `${Math.min(99, 100 * before.probability)}%`;
    add(row, "span", {className: "value"}, probability(answer.probability));
  }
}

// What two runs make of one text: of each answer both probabilities, and by how much the second's is higher.
function drawComparison(section, {text, runs, outputs, answers}) {
  add(section, "h2", {dir: "auto"}, text);
  const agree = outputs[0] === outputs[1];
  add(section, "p", {className: "muted"}, agree ? "Both runs answer alike." : "The runs answer differently.");
  const table = add(section, "table"), head = add(add(table, "thead"), "tr"), body = add(table, "tbody");
  for (const name of ["Answer", ...runs, "Difference"]) add(head, "th", {scope: "col"}, name);
  for (const answer of answers) {
    const row = add(body, "tr"), [before, after] = answer.probabilities;
    add(row, "th", {scope: "row", dir: "auto"}, answer.text);
    answer.probabilities.forEach((p, i) => {
      const cell = add(row, "td", {}, p === null ? "not known" : probability(p));
      if (outputs[i] === answer.text) cell.className = "output";
    });
    const cell = add(row, "td", {className: "difference"});
    if (before === null || after === null) { cell.textContent = "–"; continue; }
    const points = 100 * (after - before), bar = add(add(cell, "span", {className: "balance"}), "i");
    Object.assign(bar.style, {[points < 0 ? "right" : "left"]: "50%", width: `${Math.abs(points) / 2}%`});
    cell.append(Math.abs(points) < .05 ? "0.0" : `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)}`);
  }
  add(section, "p", {className: "legend"}, "Difference: percentage points, the second run less the first. Bold: what the run answers.");
}

// Replace what is shown. whole: of the first text alone, see drawSummary. comparisons: of every two texts in turn, which
// are then one text as two runs read it.
function show(texts, whole = null, comparisons = []) {
  const main = document.getElementById("texts"), contents = document.getElementById("contents");
  main.replaceChildren(); contents.replaceChildren();
  const links = comparisons.length ? comparisons : texts;
  links.forEach((shown, i) => add(contents, "a", {href: `#text-${i}`}, shown.text));
  contents.hidden = links.length < 2;
  document.getElementById("layout").hidden = texts.length < 2;
  page.views = [];
  texts.forEach((shown, i) => {
    if (comparisons.length && i % 2 === 0)
      drawComparison(add(main, "section", {className: "view comparison", id: `text-${i / 2}`}), comparisons[i / 2]);
    const article = add(main, "article");
    if (!comparisons.length) article.id = `text-${i}`;
    article.style.setProperty("--rows", 1 + Math.max(1, shown.views.length));
    drawSummary(article, shown, whole);
    if (!shown.views.length) add(article, "p", {className: "muted"}, "This model has no attention to show.");
    for (const view of shown.views) page.views.push(new View(article, view));
  });
  document.getElementById("scale").hidden = !page.views.length;
  document.getElementById("drawing").hidden = !page.views.length;
  document.getElementById("measure").hidden = !page.views.some(view => view.bytes.value_weighted);
}

// ------------------------------------------------------------------------------------------------------------- start

function noteMeasure() { document.getElementById("measure-note").textContent = MEASURES[page.measure]; }
for (const choice of document.querySelectorAll("input[name=measure]"))
  choice.onchange = () => {
    page.measure = choice.value;
    noteMeasure();
    page.views.forEach(view => view.repaint());
  };
for (const choice of document.querySelectorAll("input[name=drawing]"))
  choice.onchange = () => { page.drawing = choice.value; page.views.forEach(view => view.resize()); };
function arrange(layout) {
  page.beside = layout === "beside";
  document.querySelector(`input[name=layout][value=${layout}]`).checked = true;
  document.body.classList.toggle("beside", page.beside);
  page.views.forEach(view => view.resize());
}
for (const choice of document.querySelectorAll("input[name=layout]")) choice.onchange = () => arrange(choice.value);
darkScreen.onchange = () => { makePalette(); drawScale(); page.views.forEach(view => view.repaint()); };
let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => page.views.forEach(view => view.resize()), 120); });
makePalette();
drawScale();
noteMeasure();
show(data.texts, null, data.comparisons);
if (data.comparisons.length) arrange("beside");

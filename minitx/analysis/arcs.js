"use strict";
// One map as arcs between two columns of tokens: left who reads, right what is read; the more, the stronger the arc.
const MOST_ARCS = 300;  // drawn at once, the strongest: more could not be told apart, and would be slow to draw
const ARCS_PER_TOKEN = 3;  // of all tokens together

class Arcs {
  // view: the View of page.js that has the tokens, the map on show and the sentence about it.
  constructor(parent, view) {
    Object.assign(this, {view, chosen: null, row: view.Q + view.K > 120 ? 20 : 26});
    this.grid = add(parent, "div", {className: "arcs", tabIndex: 0, onkeydown: event => this.move(event)});
    this.grid.setAttribute("role", "application");
    this.grid.setAttribute("aria-label", "Arcs; up and down choose a token, left and right its side, Escape shows all");
    this.queries = this.column("query", view.view.queries);
    const height = Math.max(view.Q, view.K) * this.row, box = `viewBox="0 0 100 ${height}" preserveAspectRatio="none"`;
    this.grid.insertAdjacentHTML("beforeend", `<svg ${box} aria-hidden="true" style="height: ${height}px"></svg>`);
    this.lines = this.grid.lastChild;
    this.keys = this.column("key", view.view.keys);
  }
  column(side, tokens) {
    const column = add(this.grid, "div", {className: `tokens ${side}`});
    return tokens.map((token, index) => {
      const label = add(column, "span", {title: token, dir: "auto", onclick: () => this.toggle(side, index)}, token);
      label.style.height = label.style.lineHeight = `${this.row}px`;
      // A mouse sees a token's arcs before it chooses; there is no such thing as hovering with a finger.
      label.onpointerenter = event => { if (event.pointerType === "mouse") this.draw({side, index}); };
      label.onpointerleave = event => { if (event.pointerType === "mouse") this.draw(); };
      return label;
    });
  }
  toggle(side, index) {
    const same = this.chosen?.side === side && this.chosen.index === index;
    this.choose(same ? null : {side, index});
  }
  choose(chosen) {
    this.chosen = chosen;
    if (chosen?.side === "query") Object.assign(this.view, {query: chosen.index, key: null});  // the map shows it too
    this.draw();
  }
  move(event) {
    const {key} = event, sizes = {query: this.view.Q, key: this.view.K};
    if (!["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Escape"].includes(key)) return;
    event.preventDefault();
    if (key === "Escape") { this.choose(null); return; }
    const step = {ArrowUp: -1, ArrowDown: 1}[key] ?? 0;
    const side = {ArrowLeft: "query", ArrowRight: "key"}[key] ?? this.chosen?.side ?? "query";
    const index = Math.min(sizes[side] - 1, Math.max(0, this.chosen ? this.chosen.index + step : 0));
    this.choose({side, index});
    (side === "query" ? this.queries : this.keys)[index].scrollIntoView({block: "nearest"});
  }

  // The arcs of `shown`, a token, or the strongest of all.
  draw(shown = this.chosen) {
    const {Q, K} = this.view, map = this.view.map(this.view.layer, this.view.head);
    const cells = [];
    if (shown?.side === "query") for (let key = 0; key < K; key++) cells.push(shown.index * K + key);
    else if (shown) for (let query = 0; query < Q; query++) cells.push(query * K + shown.index);
    const most = shown ? MOST_ARCS : Math.min(MOST_ARCS, ARCS_PER_TOKEN * Math.max(Q, K));
    const {least, count} = this.threshold(map, shown ? cells : null, most);
    const arcs = document.createDocumentFragment();
    const draw = cell => { if (map[cell] >= least) arcs.append(this.arc(Math.floor(cell / K), cell % K, map[cell])); };
    if (shown) cells.forEach(draw);
    else map.forEach((_, cell) => draw(cell));
    this.lines.replaceChildren(arcs);
    this.shade(map, shown);
    this.tell(map, shown, cells, least, count);
  }
  // The least byte of which, and of all above, there are at most `most`; and how many arcs there are at all. Where very
  // many weights are equal, as in a model that is not trained, none of them is drawn: there is no strongest one.
  threshold(map, cells, most) {
    const counts = new Uint32Array(256);
    if (cells) for (const cell of cells) counts[map[cell]]++;
    else for (const byte of map) counts[byte]++;
    let least = 256, drawn = 0;
    while (least > 1 && drawn + counts[least - 1] <= most) drawn += counts[--least];
    return {least, count: counts.reduce((sum, n) => sum + n, 0) - counts[0]};
  }
  arc(query, key, byte) {
    const path = document.createElementNS(this.lines.namespaceURI, "path"), [from, to] = [query, key].map(i => (i + .5) * this.row);
    path.setAttribute("d", `M0 ${from}C50 ${from} 50 ${to} 100 ${to}`);
    const weight = weightOf(byte);
    path.style.strokeOpacity = Math.min(1, .06 + 1.1 * Math.sqrt(weight));  // about as a cell is shaded
    path.style.strokeWidth = 1 + 3 * weight;
    return path;
  }
  // The tokens at the other ends are shaded as in the map.
  shade(map, shown) {
    const {K} = this.view;
    const paint = (labels, side, byteOf) => labels.forEach((label, i) => {
      label.classList.toggle("on", shown?.side === side && shown.index === i);
      const byte = shown && shown.side !== side ? byteOf(i) : null;
      label.style.background = byte === null ? "" : palette.css[byte];
      label.style.color = byte === null ? "" : palette.ink[byte];
    });
    paint(this.queries, "query", query => map[query * K + shown?.index]);
    paint(this.keys, "key", key => map[shown?.index * K + key]);
  }
  tell(map, shown, cells, least, count) {
    const {view} = this, {K} = view;
    if (!shown) {
      const drawn = map.reduce((sum, byte) => sum + (byte >= least), 0), all = count.toLocaleString("en");
      const which = drawn === count ? `All ${all} arcs` : drawn ? `The ${drawn} strongest of ${all} arcs`
        : `None of the ${all} arcs is stronger than the others`;
      view.read.textContent = `${which}; choose a token to see its own alone`;
      return;
    }
    const strongest = cells.reduce((best, cell) => map[cell] > map[best] ? cell : best, cells[0]);
    if (shown.side === "query") { view.tell(shown.index, strongest % K, true, map[strongest]); return; }
    const {isRead} = SUMMARIES[view.head] ?? SUMMARIES.mean;
    view.read.replaceChildren();
    add(view.read, "b", {}, view.view.keys[shown.index]);
    view.read.append(` ${isRead} `);
    add(view.read, "b", {}, view.view.queries[Math.floor(strongest / K)]);
    view.read.append(`: ${percent(map[strongest])}`);
  }
}

"use strict";
// Other texts and switched-off heads: asks the server that this page came from. After page.js.
{
  const form = document.getElementById("ask"), field = document.getElementById("text"), status = document.getElementById("status");
  const button = form.querySelector("button");
  let off = [], whole = null, latest = 0;  // off: heads of `whole`, the text with all heads on

  const same = (one, kind, layer, head) => one.kind === kind && one.layer === layer && one.head === head;
  page.live = {
    isOff: (kind, layer, head) => off.some(one => same(one, kind, layer, head)),
    toggle(kind, layer, head) {
      const without = off.filter(one => !same(one, kind, layer, head));
      change(without.length < off.length ? without : [...off, {kind, layer, head}]);
    },
    // The heads that are off, each a button that switches it on again.
    drawOff(parent) {
      parent.append("Switched off:");
      for (const one of off)
        add(parent, "button", {type: "button", title: "switch it on again", onclick: () => page.live.toggle(one.kind, one.layer, one.head)},
          `${one.kind} ${headName(one.layer, one.head).toLowerCase()} ✕`);
      if (off.length > 1) add(parent, "button", {type: "button", onclick: () => change([])}, "all on");
    },
  };

  function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("wrong", wrong);
  }
  // The server's answer, or null after saying what went wrong; of several questions only the latest counts.
  async function ask(body) {
    const mine = ++latest, start = performance.now();
    say("…");
    button.disabled = true;
    for (const article of document.querySelectorAll("article")) article.classList.add("stale");
    let answer = null, trouble;
    try {
      const response = await fetch("attention", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
      const found = await response.json();
      if (response.ok) answer = found; else trouble = found.error;
    } catch (error) {
      trouble = "the server does not answer; is minitx serve still running?";
    }
    if (mine !== latest) return null;
    button.disabled = false;
    for (const article of document.querySelectorAll("article")) article.classList.remove("stale");
    if (answer === null) say(trouble, true);
    else say(`${answer.n_tokens} tokens, ${Math.round(performance.now() - start)} ms` + (answer.cut ? "; the text is longer than the model reads and was cut" : ""), answer.cut);
    return answer;
  }
  async function submit() {
    const answer = await ask({text: field.value, effects: true});
    if (answer === null) return;
    off = [];
    whole = answer;
    show([whole]);
  }
  // Show the text again with other heads off; what each head is worth stays that of the whole model.
  async function change(wanted) {
    const answer = wanted.length ? await ask({text: whole.text, off: wanted}) : whole;
    if (answer === null) return;
    off = wanted;
    if (!wanted.length) { show([whole]); say("all heads on"); return; }
    for (const view of answer.views)
      view.loss_without = whole.views.find(other => other.kind === view.kind)?.loss_without ?? null;
    show([answer], whole);
  }

  form.onsubmit = event => { event.preventDefault(); submit(); };
  field.onkeydown = event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  };
  field.setSelectionRange(field.value.length, field.value.length);
  say("Enter shows it, Shift+Enter begins a new line");
  if (field.value) submit();
}

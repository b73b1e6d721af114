"use strict";
// One question at a time. The server knows which turn it is; here are two pictures, an instruction and a number.
(() => {
  const KEYS = { 1: "yes", 0: "no", u: "unsure", U: "unsure", Backspace: "undo" };
  const LABELS = { yes: 1, no: 0, unsure: null };
  const SMALL = 128; // pixels up to which a picture is shown with its pixels as they are
  const part = (id) => document.getElementById(id);
  let question = null;
  let busy = false;

  function show(told) {
    question = told.question;
    const asking = question !== null;
    part("labeller").textContent = `by ${told.labeller}`;
    part("bar").max = told.total;
    part("bar").value = told.done;
    part("count").textContent = `${told.done} of ${told.total}`;
    part("ask").hidden = !asking;
    part("end").hidden = asking;
    for (const id of Object.keys(LABELS)) part(id).disabled = !asking;
    part("undo").disabled = told.done === 0;
    part("trouble").hidden = true;
    if (asking) {
      part("instruction").textContent = told.instruction;
      for (const id of ["before", "after"]) part(id).src = told[id];
    } else {
      part("alone").hidden = told.agreement.length > 0;
      part("agreement").replaceChildren(...told.agreement.map((words) => {
        const line = document.createElement("li");
        line.textContent = words;
        return line;
      }));
    }
  }

  async function ask(path, body) {
    if (busy) return;
    busy = true;
    try {
      const sent = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
      const answer = await fetch(path, { ...sent, cache: "no-store" });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error);
      show(told);
    } catch (error) {
      const words = error instanceof TypeError ? "the server does not answer; start it again, nothing that was counted is lost" : error.message;
      part("trouble").textContent = `Not kept: ${words}.`;
      part("trouble").hidden = false;
    }
    busy = false;
    document.body.dataset.shown = String(question);
  }

  function press(id) {
    if (part(id).disabled) return;
    if (id === "undo") ask("/undo", {});
    else ask("/answer", { question, label: LABELS[id] });
  }

  for (const id of [...Object.keys(LABELS), "undo"]) part(id).addEventListener("click", () => press(id));
  for (const id of ["before", "after"]) {
    part(id).addEventListener("load", ({ target }) => target.classList.toggle("small", Math.max(target.naturalWidth, target.naturalHeight) <= SMALL));
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    press(KEYS[event.key]);
  });
  ask("/question");
})();

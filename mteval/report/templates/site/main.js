"use strict";
// Which view the address asks for, and the keys that work in all of them.
(() => {
  const VIEWS = { board: () => board.show(), sessions: () => gallery.show(), session: () => viewer.show() };
  const trouble = document.getElementById("trouble");
  let before = "";

  async function show() {
    const name = place.word("view", Object.keys(VIEWS), "board");
    for (const view of Object.keys(VIEWS)) document.getElementById(`view-${view}`).hidden = view !== name;
    if (before === "session" && name !== "session") viewer.leave();
    for (const [link, current] of [["to-board", name === "board"], ["to-sessions", name !== "board"]]) {
      document.getElementById(link).toggleAttribute("aria-current", current);
    }
    document.body.dataset.view = name;
    if (before && before !== name) scrollTo(0, 0);
    before = name;
    trouble.hidden = true;
    try {
      await VIEWS[name]();
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
    }
    document.body.dataset.shown = location.hash || "#";
  }

  const typing = (element) => element.closest("input:not([type=checkbox]), textarea, select") !== null;

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      const seek = () => document.getElementById("gallery-search")?.focus();
      if (before === "sessions") seek();
      else {
        place.go(before === "session" ? place.changed({ view: "sessions", s: "", t: "" }) : place.link({ view: "sessions" }));
        setTimeout(function wait() { if (document.getElementById("gallery-search")) seek(); else setTimeout(wait, 50); }, 0);
      }
    } else if (before === "session" && viewer.key(event.key)) event.preventDefault();
  });

  // Links of the page are steps of its history; hashes of other kinds are left to the browser.
  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#view=']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    place.go(link.getAttribute("href"));
  });

  for (const command of document.querySelectorAll("pre.command")) {
    command.after(make("button", { type: "button", class: "copy", onclick: (event) => copied(event.target, command.textContent) }, "Copy command"));
  }
  place.listen(show);
  addEventListener("hashchange", show);
  show();
})();

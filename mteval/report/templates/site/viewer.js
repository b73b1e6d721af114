"use strict";
// One session: the frame of a turn large, with what it was made from and what changed, and the whole filmstrip below.
const viewer = (() => {
  const root = document.getElementById("view-session");
  const open = new Set(); // which of the folded parts are open, so that they stay so from frame to frame
  let now = null;
  let asked = 0;

  async function film(side, index, session) {
    const there = /[^-]/.test(gallery.verdicts(index, side, session));
    const name = side.run.toString();
    return { ...side, name, film: there ? await shards.film(now.chapter, side.run, session) : { turns: [], scores: [], images: {} } };
  }

  async function show() {
    const side = gallery.sides();
    const index = await shards.index(side.chapter);
    const session = place.number("s", index.sessions.length);
    const key = [side.chapter, session, side.a.key, side.b?.key].join(" ");
    if (now?.key === key && !root.hidden && root.childElementCount) return turnTo(place.number("t", now.turns + 1, 1));
    asked += 1;
    const mine = asked;
    now = { key, chapter: side.chapter, of: side.of, index, session, side };
    const rows = await Promise.all([side.a, side.b].filter(Boolean).map((one) => film(one, index, session)));
    if (mine !== asked || place.text("view") !== "session") return undefined;
    const order = gallery.chosen(index, side);
    const turns = Math.max(1, ...rows.map((row) => row.film.turns.filter((one) => one.protocol === row.protocol).length));
    Object.assign(now, { rows, turns, order });
    build();
    turnTo(place.number("t", turns + 1, 1));
    const next = order[order.indexOf(session) + 1];
    if (next !== undefined && /[^-]/.test(gallery.verdicts(index, side.a, next))) shards.film(side.chapter, side.a.run, next).catch(() => undefined);
    return undefined;
  }

  const label = (row) => `${now.of.runs[row.run].name}, ${row.protocol}`;
  // What tells the two sides apart.
  function short(row) {
    const { a, b } = now.side;
    const name = now.of.runs[row.run].name;
    return !b || a.run !== b.run ? (b && a.protocol !== b.protocol ? label(row) : name) : row.protocol;
  }
  const frameAt = (row, turn) => frames.at(row.film, row.protocol, turn, now.of.runs[row.run].following);

  function beside(step) {
    const at = now.order.indexOf(now.session);
    return at < 0 ? undefined : now.order[at + step];
  }
  function toSession(step) {
    const to = beside(step);
    if (to !== undefined) place.step({ s: to, t: "" });
  }
  const back = () => place.go(place.changed({ view: "sessions", s: "", t: "" }));

  function build() {
    const [id, turns] = now.index.sessions[now.session];
    const { side } = now;
    const focused = root.contains(document.activeElement) ? document.activeElement.id : "";
    const step = (words, by, name) => make("button", { type: "button", id: `session${by}`, disabled: beside(by) === undefined, "aria-label": name, onclick: () => toSession(by) }, words);
    replaced(root,
      make("section", { class: "wide viewer", "aria-labelledby": "viewer-title" },
        make("div", { class: "viewer-head" },
          make("a", { href: place.changed({ view: "sessions", s: "", t: "" }) }, "‹ all sessions ", make("kbd", {}, "Esc")),
          make("h2", { id: "viewer-title", tabindex: -1 }, id),
          make("span", { class: "buttons" }, step("‹ previous", -1, "previous session"), step("next ›", 1, "next session"),
            make("button", { type: "button", id: "copy-link", onclick: (event) => copied(event.target, location.href) }, "Copy link"))),
        make("div", { class: "controls" }, gallery.choosers(side, (values) => place.step(values)),
          make("label", { class: "tick" }, make("input", { type: "checkbox", id: "boxes", checked: place.text("boxes") !== "off",
            onchange: (event) => { place.step({ boxes: event.target.checked ? "" : "off" }); } }), "evidence boxes")),
        make("div", { id: "stage", class: "stage" }),
        make("h3", {}, "The whole session"),
        make("p", { class: "note" }, "Arrow keys ", make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " flip through the turns, ", make("kbd", {}, "j"), " ", make("kbd", {}, "k"), " through the sessions."),
        make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Filmstrip" }, strip(turns))));
    focus(focused || "viewer-title");
  }
  // What had the focus before it was drawn again.
  const focus = (id) => document.getElementById(id)?.focus({ preventScroll: true });

  function strip(turns) {
    const rows = 3 + 3 * now.rows.length;
    const list = make("ol", { class: "film" });
    list.style.setProperty("--rows", rows);
    const cell = (content) => make("div", {}, content);
    list.append(make("li", {}, make("p", { class: "turn" }, make("b", {}, "start")), make("p", { class: "asked" }, ""), make("span", {}),
      now.rows.flatMap((row) => [make("p", { class: "who", title: label(row) }, short(row)), frames.shown(frames.source(row.film), "the first image"), cell("")])));
    for (let turn = 1; turn <= now.turns; turn += 1) {
      const [type, instruction] = [now.index.types[turns[turn - 1]?.[0]], turns[turn - 1]?.[1] ?? ""];
      list.append(make("li", { "data-turn": turn },
        make("p", { class: "turn" }, make("b", {}, `turn ${turn}`), ` ${plainWords(type ?? "")}`),
        make("p", { class: "asked" }, instruction), make("span", {}),
        now.rows.flatMap((row) => {
          const frame = frameAt(row, turn);
          const words = frame ? `turn ${turn}, ${label(row)}: ${frame.verdict[1]}` : `turn ${turn}, ${label(row)}`;
          return [make("p", { class: "who", title: label(row) }, short(row)),
            make("button", { type: "button", class: "frame", "aria-label": `show ${words}`, onclick: () => place.step({ t: turn }) }, frames.shown(frame?.image, words)),
            cell(frame ? frames.told(frame.verdict) : make("p", { class: "verdict unknown" }, "no such turn in this run"))];
        })));
    }
    return list;
  }

  function turnTo(turn) {
    now.turn = Math.min(Math.max(1, turn), now.turns);
    const [type, instruction] = now.index.sessions[now.session][1][now.turn - 1] ?? [0, ""];
    const boxes = place.text("boxes") !== "off";
    const focused = document.activeElement?.closest("#stage") ? document.activeElement.id : "";
    replaced(document.getElementById("stage"),
      make("div", { class: "stage-head" },
        make("button", { type: "button", id: "turn-back", "aria-label": "previous turn", disabled: now.turn === 1, onclick: () => place.step({ t: now.turn - 1 }) }, "←"),
        make("p", { "aria-live": "polite", id: "stage-turn" }, make("b", {}, `Turn ${now.turn} of ${now.turns}`), ` ${plainWords(now.index.types[type] ?? "")}`),
        make("button", { type: "button", id: "turn-on", "aria-label": "next turn", disabled: now.turn === now.turns, onclick: () => place.step({ t: now.turn + 1 }) }, "→")),
      make("p", { class: "instruction" }, instruction),
      now.rows.map((row) => lane(row, frameAt(row, now.turn), boxes)));
    if (focused) focus(focused);
    for (const item of root.querySelectorAll(".film li")) {
      const current = Number(item.dataset.turn) === now.turn;
      item.toggleAttribute("aria-current", current);
      if (current) {
        const scroll = item.closest(".scroll");
        const over = item.offsetLeft + item.offsetWidth - scroll.clientWidth;
        if (item.offsetLeft < scroll.scrollLeft + 40 || over > scroll.scrollLeft) scroll.scrollLeft = Math.max(0, item.offsetLeft - scroll.clientWidth / 2);
      }
    }
  }

  function lane(row, frame, boxes) {
    if (!frame) return make("article", { class: "lane" }, make("h3", {}, label(row)), make("p", { class: "note" }, "This run has no such turn."));
    const figure = (kind, words, content) => make("figure", { class: kind }, content, make("figcaption", {}, words));
    const first = frame.record.turn === 1 || frame.input === frame.source;
    return make("article", { class: "lane" },
      make("h3", {}, label(row)),
      make("div", { class: "pictures" },
        figure("before", INPUT(row.protocol, frame.record.turn), frames.shown(frame.input, "what the editor was shown", boxes ? frame.boxes.before : [])),
        figure("after", "what it made", frames.shown(frame.image, "what the editor made", boxes ? frame.boxes.after : [])),
        frame.image && frame.input ? figure("map", first ? "change to the start" : "change to its input", map(frame.input, frame.image, "change from its input")) : null,
        frame.image && frame.source && !first ? figure("map", "change to the start", map(frame.source, frame.image, "change from the first image")) : null,
        frame.reference ? figure("wanted", "reference", frames.shown(frame.reference, "the reference image")) : null),
      make("div", { class: "words" },
        frames.told(frame.verdict, true),
        frame.image ? difference.scale() : null,
        folded(`judgements ${row.key}`, `All judgements (${frame.scores.length})`, () => judgements(frame.scores)),
        folded(`record ${row.key}`, "Raw record", () => [
          make("p", { class: "note" }, `As it stands in rollouts.jsonl and scores.jsonl of the run folder ${now.of.runs[row.run].folder}.`),
          make("pre", { tabindex: 0 }, JSON.stringify({ turn: frame.record, scores: frame.scores }, null, 1))])));
  }

  const INPUT = (protocol, turn) => (turn === 1 || protocol === "single-shot" ? "start" : protocol === "teacher-forced" ? "clean input" : "its own last image");

  function map(before, after, words) {
    const canvas = make("canvas", { role: "img", "aria-label": `Difference map: ${words}`, class: "map" });
    difference.paint(canvas, before, after).catch(() => canvas.replaceWith(make("span", { class: "gap" }, "cannot be drawn")));
    return canvas;
  }

  function folded(key, words, content) {
    const part = make("details", { open: open.has(key) }, make("summary", {}, words));
    const fill = () => { if (part.open && part.childElementCount === 1) part.append(...[content()].flat()); };
    part.addEventListener("toggle", () => { if (part.open) open.add(key); else open.delete(key); fill(); });
    fill();
    return part;
  }

  function judgements(scores) {
    const said = (score) => (score.state !== "ok" ? plainWords(score.state) : score.success === null ? String(score.value) : score.success ? "done" : "not done");
    return make("div", { class: "scroll" }, make("table", { class: "plain" },
      make("thead", {}, make("tr", {}, ["scorer", "edit of turn", "verdict", "value", "reason"].map((word) => make("th", { scope: "col" }, word)))),
      make("tbody", {}, scores.map((score) => make("tr", {}, make("th", { scope: "row" }, score.scorer), make("td", {}, String(score.judged)), make("td", {}, said(score)),
        make("td", {}, score.value === null ? "–" : String(Math.round(score.value * 1e4) / 1e4)), make("td", { class: "long" }, score.reason))))));
  }

  // Whether the key was for this view.
  function key(name) {
    if (name === "ArrowRight" || name === "ArrowLeft") {
      const to = now.turn + (name === "ArrowRight" ? 1 : -1);
      if (to >= 1 && to <= now.turns) place.step({ t: to });
    } else if (name === "j" || name === "k") toSession(name === "j" ? 1 : -1);
    else if (name === "Escape") back();
    else return false;
    return true;
  }

  return { show, key: (name) => (now?.rows ? key(name) : false), leave: () => { now = null; asked += 1; root.replaceChildren(); } };
})();

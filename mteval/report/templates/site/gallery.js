"use strict";
// Every session of a benchmark, filtered and paged: where it starts and ends, and a sign for each turn.
const gallery = (() => {
  const PAGE = 24;
  const OUTCOME = { done: "every turn done", incomplete: "incomplete" };

  // What the gallery and the viewer share of the address: the benchmark, one or two sides (a run under a protocol).
  function sides() {
    const chapter = place.number("c", site.chapters.length);
    const of = site.chapters[chapter];
    const ranked = of.runs.map((_, run) => run).sort((x, y) => (of.runs[x].place ?? 1e9) - (of.runs[y].place ?? 1e9) || x - y);
    const known = ranked.flatMap((run) => of.runs[run].protocols.map((protocol) => `${run}.${protocol}`));
    const parsed = (key) => (key ? { key, run: Number(key.split(".")[0]), protocol: key.slice(key.indexOf(".") + 1) } : null);
    const a = place.word("a", known, known[0]);
    // Without a word on it the second best stands beside the best.
    const usual = of.runs.length > 1 && !place.text("a") ? known.find((key) => !key.startsWith(`${ranked[0]}.`)) : "";
    const b = place.word("b", ["none", ...known], usual || "none");
    const name = (key) => `${of.runs[parsed(key).run].name}, ${parsed(key).protocol}`;
    return { chapter, of, a: parsed(a), b: b === "none" ? null : parsed(b), options: known.map((key) => [key, name(key)]), name };
  }

  const choosers = ({ a, b, options }, change) => [
    choice("first", options, a.key, (value) => change({ a: value, b: b?.key ?? "none" }), "side-a"),
    choice("beside it", [["none", "nothing"], ...options], b?.key ?? "none", (value) => change({ a: a.key, b: value }), "side-b"),
  ];

  const verdicts = (index, side, session) => (side ? index.runs[side.run].verdicts[side.protocol][session] : "");
  const disputed = (index, side, session) => (side ? index.runs[side.run].disputed[side.protocol]?.[session] ?? 0 : 0);
  const differing = (x, y) => [...x].filter((letter, turn) => "sf".includes(letter) && "sf".includes(y[turn] ?? "") && letter !== y[turn]).length;

  // The numbers of the sessions that the filters of the address leave, in their order.
  function chosen(index, { a, b }) {
    const wanted = place.text("outcome");
    const show = place.text("show");
    const type = index.types.indexOf(place.text("type"));
    const words = place.text("q").toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    index.sessions.forEach(([id, turns], session) => {
      const letters = [verdicts(index, a, session), verdicts(index, b, session)];
      if (/^-*$/.test(letters.join(""))) return;
      if (wanted && outcome(letters[0]) !== wanted) return;
      if (show === "gone" && !/[bx]/.test(letters.join(""))) return;
      if (show === "disputed" && !disputed(index, a, session) && !disputed(index, b, session)) return;
      if (show === "apart" && !differing(...letters)) return;
      if (type >= 0 && !turns.some(([of]) => of === type)) return;
      if (words.length) {
        const text = [id, ...turns.map(([, instruction]) => instruction)].join(" ").toLowerCase();
        if (!words.every((word) => text.includes(word))) return;
      }
      found.push(session);
    });
    if (b && place.text("order") === "apart") {
      const apart = new Map(found.map((session) => [session, differing(verdicts(index, a, session), verdicts(index, b, session))]));
      found.sort((x, y) => apart.get(y) - apart.get(x) || x - y);
    }
    return found;
  }

  const signs = (letters) => make("span", { class: "signs", role: "img",
    "aria-label": [...letters].map((letter, turn) => `turn ${turn + 1} ${LETTERS[letter][1]}`).join(", ") },
  [...letters].map((letter, turn) => make("span", { class: LETTERS[letter][0], title: `turn ${turn + 1}: ${LETTERS[letter][1]}` }, sign(LETTERS[letter][0]))));

  const thumb = (name, words) => (/^[0-9a-f]{24}$/.test(name ?? "")
    ? make("img", { src: `images/${name}.webp`, alt: words, loading: "lazy", decoding: "async" })
    : make("span", { class: "gap", role: "img", "aria-label": `${words}: no image` }, "no image"));

  function card(index, side, session) {
    const { of, a, b } = side;
    const [id] = index.sessions[session];
    const images = (one) => index.runs[one.run].images[session];
    const rows = [a, b].filter(Boolean);
    const shown = [...new Set(rows.map((one) => one.run))];
    return make("li", {}, make("a", { class: "tile", href: place.changed({ view: "session", s: session, a: a.key, b: b?.key ?? "none", t: "" }) },
      make("span", { class: "thumbs" },
        make("span", {}, thumb(images(a)[0] || images(b ?? a)[0], `${id}: the first image`), make("small", {}, "start")),
        shown.map((run) => make("span", {}, thumb(index.runs[run].images[session][1], `${id}: the last image of ${of.runs[run].name}`), make("small", {}, of.runs[run].name)))),
      make("b", {}, id),
      rows.map((one) => make("span", { class: "row" }, signs(verdicts(index, one, session)),
        b ? make("small", {}, a.run === b.run ? one.protocol : of.runs[one.run].name) : null))));
  }

  function controls(index, side) {
    const focused = document.activeElement?.id;
    const at = document.activeElement?.selectionStart;
    const { chapter, of, a, b } = side;
    const change = (values) => place.step({ page: "", ...values });
    const counts = new Map();
    index.sessions.forEach((_, session) => {
      const name = outcome(verdicts(index, a, session));
      counts.set(name, (counts.get(name) ?? 0) + 1);
    });
    const outcomes = [...Array.from({ length: of.turns }, (_, turn) => [`first-${turn + 1}`, `first failure at turn ${turn + 1}`]), ...Object.entries(OUTCOME)]
      .filter(([name]) => counts.has(name)).map(([name, words]) => [name, `${words} (${counts.get(name)})`]);
    const some = (test) => index.sessions.some((_, session) => test(session));
    const show = [["", "all sessions"]];
    if (some((session) => /[bx]/.test(verdicts(index, a, session) + verdicts(index, b, session)))) show.push(["gone", "with a blocked or failed turn"]);
    if (some((session) => disputed(index, a, session) || disputed(index, b, session))) show.push(["disputed", "on which judges disagree"]);
    if (b) show.push(["apart", "on which the two differ"]);
    const search = make("input", { type: "search", id: "gallery-search", placeholder: "id or instruction", autocomplete: "off", spellcheck: "false",
      oninput: (event) => { if (!event.isComposing) change({ q: event.target.value }); },
      oncompositionend: (event) => change({ q: event.target.value }) });
    search.value = place.text("q");
    replaced(document.getElementById("gallery-filters"),
      site.chapters.length > 1 ? choice("benchmark", site.chapters.map((one, number) => [number, one.benchmark]), chapter,
        (value) => place.go(place.link({ view: "sessions", c: value })), "gallery-benchmark") : null,
      choosers(side, change),
      choice(b ? "how the first came out" : "how it came out", [["", "every outcome"], ...outcomes], place.text("outcome"), (value) => change({ outcome: value }), "gallery-outcome"),
      choice("type of edit", [["", "any type"], ...index.types.map((name) => [name, plainWords(name)])], place.text("type"), (value) => change({ type: value }), "gallery-type"),
      show.length > 1 ? choice("show", show, place.text("show"), (value) => change({ show: value }), "gallery-show") : null,
      b ? choice("order", [["", "by id"], ["apart", "largest difference first"]], place.text("order"), (value) => change({ order: value }), "gallery-order") : null,
      make("label", {}, make("span", {}, "search ", make("kbd", {}, "/")), search));
    if (focused && document.activeElement?.id !== focused) {
      const again = document.getElementById(focused);
      again?.focus();
      if (focused === "gallery-search" && again) again.setSelectionRange(at, at);
    }
  }

  function pages(count, page) {
    const last = Math.max(0, Math.ceil(count / PAGE) - 1);
    const turn = (words, to) => make("button", { type: "button", disabled: to < 0 || to > last, onclick: () => { place.step({ page: to || "" }); scrollTo(0, 0); } }, words);
    return last ? [turn("‹ Previous", page - 1), make("span", {}, `page ${page + 1} of ${last + 1}`), turn("Next ›", page + 1)] : [];
  }

  async function show() {
    const side = sides();
    const index = await shards.index(side.chapter);
    if (place.text("view") !== "sessions") return;
    const found = chosen(index, side);
    const page = Math.min(place.number("page", 1e6), Math.max(0, Math.ceil(found.length / PAGE) - 1));
    controls(index, side);
    const repeats = side.of.runs[side.a.run].repeats;
    replaced(document.getElementById("gallery-count"), document.createTextNode(
      `${found.length} of ${plural(index.sessions.length, "session")}${repeats > 1 ? `, the first of ${repeats} repeats` : ""}. ` +
      (found.length ? "Open one to look through its frames." : "Nothing is left: change a filter.")));
    replaced(document.getElementById("signs-key"), ["s", "f", "u", "b"].map((letter) => make("li", { class: LETTERS[letter][0] }, sign(LETTERS[letter][0]),
      { s: "edit done", f: "not done", u: "no verdict", b: "no image (blocked, failed, skipped)" }[letter])));
    replaced(document.getElementById("gallery"), found.slice(page * PAGE, (page + 1) * PAGE).map((session) => card(index, side, session)));
    replaced(document.getElementById("gallery-pages"), pages(found.length, page));
  }

  return { show, sides, choosers, chosen, verdicts, signs };
})();

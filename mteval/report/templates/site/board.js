"use strict";
// The leaderboard: rows of runs, columns of numbers that are looked up in the metrics tables of the page, never computed.
const board = (() => {
  const AT = Object.fromEntries(site.columns.map((name, index) => [name, index]));
  const codes = new Map(site.words.map((word, index) => [word, index]));
  const tables = site.chapters.map((chapter) => chapter.runs.map(({ numbers }) => {
    const table = new Map();
    for (const row of numbers) table.set([row[AT.protocol], row[AT.scorer], row[AT.turn], row[AT.task_type], row[AT.metric]].join("|"), row);
    return table;
  }));

  function lookUp(chapter, run, column, turn, type) {
    const of = site.chapters[chapter].columns[column];
    const key = [codes.get(of.protocol), codes.get(of.scorers[run]), of.by_turn ? turn : null, codes.get(type), codes.get(of.metric)];
    return tables[chapter][run].get(key.map((part) => part ?? "").join("|"));
  }

  // As Python writes "%.1f": a tie, which four quarters show, goes to the even digit.
  function fixed(value) {
    const tenths = value * 10;
    if (Number.isInteger(value * 4) && Math.abs(tenths % 1) === 0.5) return (2 * Math.round(tenths / 2) / 10).toFixed(1);
    return value.toFixed(1);
  }
  function written(value, unit) {
    if (value === null) return "–";
    const shown = unit.own ? String(Number(value.toPrecision(4))) : fixed(value * unit.scale);
    return Number(shown) === 0 ? shown.replace("-", "") : shown.replace("-", "−");
  }
  function interval(row, unit) {
    return row[AT.low] === null ? "" : `[${written(row[AT.low], unit)}, ${written(row[AT.high], unit)}]`;
  }
  function told(row, unit) {
    const parts = [`${written(row[AT.value], unit)} ${unit.name}`];
    if (row[AT.low] !== null) parts.push(`95 % interval ${written(row[AT.low], unit)} to ${written(row[AT.high], unit)}`);
    parts.push(`n = ${row[AT.n]}`);
    if (row[AT.n_missing]) parts.push(`${row[AT.n_missing]} missing`);
    return parts.join(", ");
  }

  // The values at the ends of a column's bars: 0 to 1, around 0 for differences, what there is for other units.
  function reach(unit, rows) {
    const ends = rows.filter(Boolean).flatMap((row) => [row[AT.value], row[AT.low], row[AT.high]]).filter((end) => end !== null);
    if (unit.signed) {
      const most = Math.ceil(Math.max(0.1, ...ends.map(Math.abs)) * 10 - 1e-9) / 10;
      return [-most, most];
    }
    if (unit.scale === 1 && ends.length) return [Math.min(...ends), Math.max(...ends, Math.min(...ends) + 1e-9)];
    return [0, 1];
  }
  function bar(row, unit, [low, high]) {
    const within = (value) => 3 + (114 * (Math.min(Math.max(value, low), high) - low)) / (high - low);
    const line = (from, to, kind, top = 7, bottom = 7) => draw("line", { x1: from, x2: to, y1: top, y2: bottom, class: kind });
    return draw("svg", { class: "bar", viewBox: "0 0 120 14", role: "img", "aria-label": told(row, unit) },
      draw("title", {}, told(row, unit)),
      line(3, 117, "track"),
      low < 0 ? line(within(0), within(0), "zero", 1, 13) : null,
      row[AT.low] === null ? null : line(within(row[AT.low]), within(row[AT.high]), "reach"),
      draw("circle", { cx: within(row[AT.value]), cy: 7, r: 4, class: "dot" }));
  }
  function cell(row, unit, ends) {
    if (!row) return make("td", { class: "nothing" }, "not measured");
    const bounds = row[AT.n_missing] && row[AT.worst] !== null && row[AT.best] !== null
      ? make("span", { class: "bounds" }, `if missing: ${written(row[AT.worst], unit)} to ${written(row[AT.best], unit)}`) : null;
    return make("td", { class: "measured" }, make("b", { class: "number" }, written(row[AT.value], unit)),
      bar(row, unit, ends), make("span", { class: "interval" }, interval(row, unit)), bounds);
  }

  function chip(coverage) {
    if (coverage === null) return "–";
    const [kind, words] = coverage < site.ranked_from ? ["bad", "much is missing"] : coverage < site.banner_below ? ["low", "data missing"] : ["full", ""];
    return make("span", { class: `chip ${kind}` }, `${fixed(coverage * 100)} %`, words ? make("small", {}, words) : null);
  }
  const amount = (value) => (value === undefined ? "–" : value === 0 ? "0" : value < 0.001 ? "< 0.001" : value < 100 ? String(Number(value.toPrecision(2))) : value.toFixed(0));

  function state() {
    const chapter = place.number("c", site.chapters.length);
    const of = site.chapters[chapter];
    const turn = Math.max(1, place.number("turn", of.turns + 1, of.turn));
    const type = place.word("type", of.types, "all");
    const protocols = [...new Set(of.columns.map((column) => column.protocol))].filter((name) => name !== "paired");
    return { chapter, of, turn, type, protocols, protocol: place.word("protocol", protocols, "") };
  }

  function shownColumns({ chapter, of, turn, type, protocol }) {
    return of.columns.map((column, index) => ({ ...column, index }))
      .filter((column) => (protocol ? column.protocol === protocol : column.usual))
      .map((column) => ({ ...column, rows: of.runs.map((_, run) => lookUp(chapter, run, column.index, turn, type)) }))
      .filter((column) => column.rows.some(Boolean));
  }

  function show() {
    const now = state();
    const { of, turn, type } = now;
    const measured = shownColumns(now);
    const groups = of.runs.some((run) => run.group);
    const columns = [
      { key: "place", head: "place", value: (run) => of.runs[run].place, cell: (run) => make("td", { class: "place" }, String(of.runs[run].place ?? "–")) },
      { key: "model", head: "model", value: (run) => of.runs[run].name, cell: (run) => make("th", { scope: "row", class: "name" }, of.runs[run].name,
        of.runs[run].unranked ? make("small", {}, of.runs[run].unranked) : null) },
      ...(groups ? [{ key: "group", head: "tie", value: (run) => of.runs[run].group || null, cell: (run) => make("td", { class: "group" }, of.runs[run].group || "–") }] : []),
      ...measured.map((column) => {
        const ends = reach(column.unit, column.rows);
        return { key: `m${column.index}`, head: column, falling: !column.lower_is_better, value: (run) => column.rows[run]?.[AT.value] ?? null,
          cell: (run) => cell(column.rows[run], column.unit, ends) };
      }),
      { key: "coverage", head: "judged", title: "Turns that have a judgement, of those that should: the least of any scorer and protocol", falling: true,
        value: (run) => of.runs[run].coverage, cell: (run) => make("td", {}, chip(of.runs[run].coverage)) },
      { key: "seconds", head: "s / turn", title: "Seconds of the editor a turn", value: (run) => of.runs[run].spent?.seconds ?? null, cell: (run) => make("td", { class: "n" }, amount(of.runs[run].spent?.seconds)) },
      { key: "dollars", head: "$ / turn", title: "US dollars of the editor a turn", value: (run) => of.runs[run].spent?.dollars ?? null, cell: (run) => make("td", { class: "n" }, amount(of.runs[run].spent?.dollars)) },
    ];
    const sorted = place.word("sort", columns.map((column) => column.key), "place");
    const column = columns.find(({ key }) => key === sorted);
    const falling = place.word("order", ["up", "down"], column.falling ? "down" : "up") === "down";
    const order = of.runs.map((_, run) => run).sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (x === null || y === null) return (x === null) - (y === null) || (of.runs[a].place ?? 1e9) - (of.runs[b].place ?? 1e9);
      const way = typeof x === "string" ? x.localeCompare(y) : x - y;
      return (falling ? -way : way) || (of.runs[a].place ?? 1e9) - (of.runs[b].place ?? 1e9);
    });
    const focused = document.activeElement?.dataset?.sort;

    const heads = columns.map((one) => make("th", { scope: "col", "aria-sort": one.key === sorted ? (falling ? "descending" : "ascending") : null },
      make("button", { type: "button", class: "sort", "data-sort": one.key, title: one.title ?? null,
        onclick: () => place.step({ sort: one.key, order: one.key === sorted ? (falling ? "up" : "down") : "" }) },
      typeof one.head === "string" ? make("b", {}, one.head)
        : [make("b", {}, one.head.symbol, one.head.by_turn ? make("sub", {}, String(turn)) : null), make("span", {}, one.head.words)],
      make("i", { class: "arrow", "aria-hidden": "true" }, one.key === sorted ? (falling ? "▼" : "▲") : "↕"))));
    replaced(document.getElementById("board"),
      make("thead", {}, make("tr", {}, heads)),
      make("tbody", {}, order.map((run) => make("tr", { class: of.runs[run].unranked ? "unranked" : null }, columns.map((one) => one.cell(run))))));
    if (focused) document.querySelector(`[data-sort="${focused}"]`)?.focus();

    replaced(document.getElementById("board-title"), document.createTextNode("Leaderboard "),
      make("small", {}, `at turn ${turn}${type === "all" ? "" : `, ${plainWords(type)} only`}${of.judged ? `, judged by ${of.judged}` : ""}`));
    notes(now, measured);
    for (const part of document.querySelectorAll(".chapter-part")) part.hidden = Number(part.dataset.chapter) !== now.chapter;
  }

  function notes({ of }, measured) {
    const own = measured.filter((column) => column.unit.own).map((column) => column.symbol);
    const lines = ["Per cent, and points for EB, with 95 % intervals: the dot is the estimate, the bar its interval on a scale from 0 to 100 (EB: around zero)."];
    if (own.length) lines.push(`${own.join(", ")}: in the unit of the scorer, from the least to the largest.`);
    if (!measured.length) lines.push("Nothing was measured for this choice.");
    lines.push("Seconds and dollars are the editor's, over every call that was made; “judged” is the share of turns that have a judgement, the least of any scorer and protocol.");
    if (of.runs.length > 1 && of.columns.length) lines.push(`Places and tie groups are by ${of.columns[of.by].symbol} at turn ${of.turn} over all types. ${of.note}`);
    replaced(document.getElementById("board-notes"), make("p", {}, lines.join(" ")));
  }

  function filters() {
    const { chapter, of, turn, type, protocol, protocols } = state();
    const focused = document.activeElement?.id;
    const named = site.chapters.map((one, index) => [index, one.benchmark + (site.chapters.filter((two) => two.benchmark === one.benchmark).length > 1 ? `, ${one.judged}` : "")]);
    replaced(document.getElementById("board-filters"),
      named.length > 1 ? choice("benchmark", named, chapter, (value) => place.step({ c: value, turn: "", type: "", protocol: "", sort: "", order: "" }), "board-benchmark") : null,
      choice("protocol", [["", "the usual columns"], ...protocols.map((name) => [name, name])], protocol, (value) => place.step({ protocol: value }), "board-protocol"),
      choice("type of edit", [["all", "all types"], ...of.types.map((name) => [name, plainWords(name)])], type, (value) => place.step({ type: value === "all" ? "" : value }), "board-type"),
      choice("turn", Array.from({ length: of.turns }, (_, index) => [index + 1, `turn ${index + 1}`]), turn, (value) => place.step({ turn: value }), "board-turn"));
    if (focused) document.getElementById(focused)?.focus();
  }

  return { show: () => { filters(); show(); } };
})();

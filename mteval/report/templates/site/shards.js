"use strict";
// Scripts beside the page, one a session and run: added when they are wanted, each hands over a string of JSON.
const site = JSON.parse(document.getElementById("data").textContent);

const shards = (() => {
  const KEPT = 40;
  const waiting = new Map();
  const known = new Map();

  globalThis.take = (name, text) => {
    waiting.get(name)?.resolve(JSON.parse(text));
  };

  function load(name) {
    if (known.has(name)) return known.get(name);
    const promise = new Promise((resolve, reject) => {
      waiting.set(name, { resolve });
      const script = make("script", { src: `data/${name}.js` });
      const done = (end) => () => { waiting.delete(name); script.remove(); end(); };
      script.addEventListener("load", done(() => reject(new Error(`data/${name}.js holds something else`))));
      script.addEventListener("error", done(() => {
        known.delete(name);
        reject(new Error(`data/${name}.js is missing: keep the folders data and images beside this page`));
      }));
      document.head.append(script);
    });
    known.set(name, promise);
    if (known.size > KEPT) known.delete(known.keys().next().value);
    return promise;
  }

  return { index: (chapter) => load(`sessions-${chapter}`), film: (chapter, run, session) => load(`${chapter}-${run}/${session}`) };
})();

// What a letter of the index says of a turn: its sign, its words, and whether a session of it is known to go on.
const LETTERS = {
  s: ["success", "done"], f: ["failure", "not done"], u: ["unknown", "no verdict"], j: ["unknown", "not judged"],
  e: ["unknown", "judgement failed"], b: ["missing", "blocked"], x: ["missing", "failed"], k: ["missing", "skipped"],
  n: ["missing", "not run"], "-": ["missing", "no record"],
};

// How a session came out, as the filmstrips of a report say it: its first failure where all before it is known.
function outcome(letters) {
  for (let turn = 0; turn < letters.length; turn += 1) {
    if (letters[turn] === "f") return `first-${turn + 1}`;
    if (letters[turn] !== "s" && letters[turn] !== "u") return "incomplete";
  }
  return "done";
}

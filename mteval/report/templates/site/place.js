"use strict";
// Where the reader is: everything that a view depends on stands in the hash of the address, so that a link is a view.
const place = (() => {
  const listeners = [];
  const read = () => new Map(new URLSearchParams(location.hash.slice(1)));
  const written = (values) => `#${new URLSearchParams([...values].filter(([, value]) => value !== "" && value !== null && value !== undefined))}`;
  const tell = () => listeners.forEach((listener) => listener());

  // A number of the hash, within 0 .. below; `otherwise` where there is none.
  function number(name, below, otherwise = 0) {
    const text = read().get(name);
    const value = /^\d{1,7}$/.test(text ?? "") ? Number(text) : NaN;
    return value < below ? value : otherwise;
  }
  // One of some words.
  const word = (name, words, otherwise) => (words.includes(read().get(name)) ? read().get(name) : otherwise);
  const text = (name) => read().get(name) ?? "";
  const link = (values) => written(new Map(Object.entries(values)));
  // The address of this view with some values changed.
  const changed = (values) => written(new Map([...read(), ...Object.entries(values)]));

  function go(hash) {
    if (hash === location.hash) return;
    history.pushState(null, "", hash);
    tell();
  }
  // A small step inside of a view: the way back leads out of the view, not through every step.
  function step(values) {
    history.replaceState(null, "", changed(values));
    tell();
  }
  addEventListener("popstate", tell);
  return { number, word, text, link, changed, go, step, listen: (listener) => listeners.push(listener) };
})();

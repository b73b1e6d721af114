"use strict";
// Elements from words. Text reaches the page through textContent alone, so what a judge or a user wrote stays text.
const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);
const replaced = (element, ...children) => element.replaceChildren(...children.flat().filter(Boolean));
const plainWords = (name) => name.replaceAll("_", " ");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function choice(label, options, value, changed, id) {
  const select = make("select", { id, onchange: (event) => changed(event.target.value) });
  for (const [key, words] of options) select.append(make("option", { value: key, selected: String(key) === String(value) }, words));
  return make("label", {}, make("span", {}, label), select);
}

// The sign of a verdict: shape and colour both tell it.
const SIGNS = {
  success: () => [draw("circle", { cx: 8, cy: 8, r: 8 }), draw("path", { d: "M4 8.4l2.8 2.8L12 5.6" })],
  failure: () => [draw("rect", { width: 16, height: 16, rx: 2 }), draw("path", { d: "M4.5 4.5l7 7m0-7l-7 7" })],
  missing: () => [draw("path", { class: "fill", d: "M8 0l8 8-8 8-8-8z" }), draw("path", { d: "M8 4v5m0 2v1" })],
  unknown: () => [draw("circle", { cx: 8, cy: 8, r: 7, class: "ring" }), draw("path", { class: "ringed", d: "M4.5 8h7" })],
};
const sign = (verdict) => draw("svg", { class: "sign", viewBox: "0 0 16 16", "aria-hidden": "true" }, ...SIGNS[verdict]());

async function copied(button, text) {
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const area = make("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Select and copy by hand";
    area.remove();
    button.focus();
  }
  setTimeout(() => { button.textContent = words; }, 1500);
}

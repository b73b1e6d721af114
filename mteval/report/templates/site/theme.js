"use strict";
// Light or dark: the reader's system decides until the button is used; what it chose is kept where the browser allows it.
const theme = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("mteval-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("mteval-theme", name); } catch { /* the next page asks the system */ } };
  const now = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const button = document.getElementById("theme");
  const label = () => {
    const other = now() === "dark" ? "light" : "dark";
    button.textContent = other[0].toUpperCase() + other.slice(1);
    button.setAttribute("aria-label", `use ${other} colours`);
  };
  const chosen = kept();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  button.hidden = false;
  label();
  dark.addEventListener("change", label);
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    keep(now());
    label();
  });
  return { now };
})();

"use strict";
for (const bar of document.querySelectorAll(".filters")) {
  bar.hidden = false;
  bar.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen) return;
    for (const button of bar.children) button.setAttribute("aria-pressed", String(button === chosen));
    for (const card of bar.parentElement.querySelectorAll(".card")) {
      card.hidden = chosen.value !== "" && !card.dataset.outcomes.split("|").includes(chosen.value);
    }
  });
}

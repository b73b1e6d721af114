"use strict";
// Served with the page by `mteval view`: asks every few seconds whether the runs went on. The overview then loads afresh by
// itself; in a session, where somebody is looking at something, a button offers it. Asked by a script element, because the
// policy of the page allows no other request.
(() => {
  const [version, records] = [VERSION, RECORDS];
  const offer = make("p", { class: "banner", role: "status", id: "live", hidden: true });
  document.querySelector("header.top").append(offer);
  const again = () => location.replace(`/${location.hash}`);

  function ask(wait) {
    setTimeout(() => {
      const script = make("script", { src: "/version" });
      const done = () => script.remove();
      script.addEventListener("load", done);
      script.addEventListener("error", () => {
        done();
        replaced(offer, document.createTextNode("The server has ended: what is here is what it read last."));
        offer.hidden = false;
        ask(10000);
      });
      document.head.append(script);
    }, wait);
  }

  globalThis.heard = (now, count, wait) => {
    if (now === version) {
      offer.hidden = true;
    } else if (document.body.dataset.view === "board" && [document.body, null].includes(document.activeElement)) {
      again();
      return;
    } else if (offer.hidden || offer.dataset.count !== String(count)) {
      offer.dataset.count = count;
      const more = count > records ? `${plural(count - records, "record")} more` : "its records were written again";
      replaced(offer, document.createTextNode(`The run has gone on: ${more}. `), make("button", { type: "button", id: "again", onclick: again }, "Show them"));
      offer.hidden = false;
    }
    ask(wait);
  };
  ask(3000);
})();

"use strict";
// What the records of a session say of one frame: its pictures, its verdict, the boxes behind it.
const frames = (() => {
  const STATES = { ok: "no verdict" };

  // One turn under one protocol; `film` is a shard.
  function at(film, protocol, turn, following) {
    const record = film.turns.find((one) => one.protocol === protocol && one.turn === turn);
    if (!record) return null;
    const scores = film.scores.filter((one) => one.protocol === protocol && one.turn === turn);
    const own = scores.filter((one) => one.judged === turn);
    const after = film.turns.find((one) => one.protocol === "teacher-forced" && one.turn === turn + 1);
    return {
      record, scores,
      source: picture(film, sourceOf(film)),
      input: picture(film, record.input),
      image: picture(film, record.image),
      reference: picture(film, after?.input),
      verdict: verdict(record, own.find((one) => one.scorer === following)),
      boxes: boxes(own),
    };
  }

  const sourceOf = (film) => film.turns.find((one) => one.turn === 1)?.input;
  const source = (film) => picture(film, sourceOf(film));

  function picture(film, content) {
    const uri = content && Object.hasOwn(film.images, content) ? film.images[content] : null;
    return typeof uri === "string" && uri.startsWith("data:image/webp;base64,") ? uri : null;
  }

  // [sign, words, reason]
  function verdict(record, score) {
    if (record.state !== "ok") return ["missing", plainWords(record.state), record.error ?? ""];
    if (!score) return ["unknown", "not judged", ""];
    if (score.state !== "ok" || score.success === null) return ["unknown", STATES[score.state] ?? plainWords(score.state), score.reason];
    return score.success ? ["success", "done", score.reason] : ["failure", "not done", score.reason];
  }

  // Boxes in shares of the image, by the side that a detector looked at; what is no box is left out.
  function boxes(scores) {
    const found = { before: [], after: [] };
    const add = (side, asked, list) => (Array.isArray(list) ? list : []).forEach((one) => {
      if (Array.isArray(one?.box) && one.box.length === 4 && one.box.every((x) => Number.isFinite(x))) {
        found[side].push({ name: String(one.name ?? asked), score: Number.isFinite(one.score) ? one.score : null, box: one.box });
      }
    });
    for (const { evidence } of scores) {
      for (const look of Array.isArray(evidence?.detections) ? evidence.detections : []) {
        if (look?.image === "before" || look?.image === "after") add(look.image, look.asked, look.found);
      }
      add("after", "kept object", evidence?.objects); // where objects that stay are cut out of every image
    }
    return found;
  }

  function overlay(list) {
    const share = (x) => 100 * Math.min(1, Math.max(0, x));
    return list.flatMap(({ name, score, box }, index) => {
      const [left, top, right, bottom] = box.map(share);
      const words = score === null ? name : `${name} ${score.toFixed(2)}`;
      const frame = make("span", { class: `box s${index % 7}`, title: words }, make("small", {}, words));
      Object.assign(frame.style, { left: `${left}%`, top: `${top}%`, width: `${Math.max(right - left, 1)}%`, height: `${Math.max(bottom - top, 1)}%` });
      return [frame];
    });
  }

  function shown(uri, words, list = []) {
    if (!uri) return make("span", { class: "gap", role: "img", "aria-label": `${words}: no image` }, "no image");
    const image = make("img", { src: uri, alt: words, decoding: "async",
      onload: (event) => event.target.classList.toggle("small", Math.max(event.target.naturalWidth, event.target.naturalHeight) <= 128) });
    return make("span", { class: "boxed" }, image, overlay(list));
  }

  function told([kind, words, reason], full) {
    return [make("p", { class: `verdict ${kind}` }, sign(kind), words), reason ? make("p", { class: full ? "reason full" : "reason", title: full ? null : reason }, reason) : null];
  }

  return { at, source, shown, told };
})();

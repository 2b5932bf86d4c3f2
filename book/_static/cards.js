// Cards, on hover and on focus; Escape closes. For a link to the glossary or the bibliography: what stands there. For a
// formula of a chapter: what its symbols mean, from the notation; the ones with another meaning there are left out.
(() => {
  const EXACT = /[.*+?^${}()|[\]\\]/g;
  const TOKEN = /\\(?:mathrm|mathcal|mathbb|begin|end) *\{[^{}]*\}|\\[a-zA-Z]+|\\.|\S/g;
  // Passed over: spaces, other alphabets and accents, inputs in brackets, subscripts that belong to no known symbol.
  const OTHER = ["\\\\(?:mathcal|mathbb|mathbf|hat|tilde|bar|overline) \\S+", "o , u(?= )", "_ (?:\\{ [^{}]*\\}|\\S+)"];

  const tokens = (tex) => {
    const found = tex.replace(/\\text\b/g, "\\mathrm").match(TOKEN) || [];
    return found.filter((token) => !/^\\([,;:! ]|left|right)$/.test(token)).join(" ").replace(/_ \{ (\S+) \}/g, "_ $1");
  };

  // A finder of symbols: the regular expression of all, longest first, and whose meaning each of its groups has.
  const finder = (notation) => {
    const known = new Map();
    const add = (pattern, entry) => known.has(pattern) || known.set(pattern, entry);
    for (const entry of notation) {
      for (const name of entry.tex.split(",\\ ")) {
        const text = tokens(name).replace(EXACT, "\\$&");
        const [base, given] = text.split(" \\(");
        if (given) add(given.includes(";") ? `${base} \\( [^()]*; [^()]*\\)` : text, entry); // after ; whatever is given
        // Without its arguments it is meant, too, and with an index that counts inputs or directions.
        if (!given || !given.includes(";")) add(/ _ /.test(base) ? base : `${base}(?! _ (?![oup] ))`, entry);
      }
    }
    const patterns = [...known.keys()].sort((a, b) => b.length - a.length);
    const [long, short] = [true, false].map((many) => patterns.filter((one) => many === / /.test(one.replace(/\(\?!.*/, ""))));
    const all = [...long.map((one) => `(${one})`), ...OTHER, ...short.map((one) => `(${one})`), "\\S+"];
    return [new RegExp(`(?<= )(?:${all.join("|")})(?= )`, "g"), [...long, ...short].map((one) => known.get(one))];
  };

  const start = () => {
    const cards = window.zonbCards || {};
    const chapter = Number((location.pathname.match(/\/(\d\d)-[^/]*$/) || [])[1]);
    const notation = (window.zonbNotation || []).filter((one) => !one.chapters || one.chapters.includes(chapter));
    const [symbols, meanings] = finder(notation);
    const card = document.createElement("div");
    card.id = "zonb-card";
    card.setAttribute("role", "tooltip");
    card.hidden = true;
    document.body.append(card);
    let shown, waiting;

    const ofLink = (link) => {
      const [page, anchor] = link.getAttribute("href").split("#");
      return page && cards[`${page.split("/").pop().replace(".html", "")}#${anchor}`];
    };
    const ofFormula = (formula) => {
      const item = [...window.MathJax.startup.document.math].find((one) => one.typesetRoot === formula);
      const found = new Set();
      for (const match of item && chapter ? ` ${tokens(item.math)} `.matchAll(symbols) : []) {
        const group = match.slice(1).findIndex((text) => text !== undefined);
        if (group >= 0) found.add(meanings[group]);
      }
      const lines = [...found].map(({ tex, meaning }) => `<p><span class="math">\\(${tex}\\)</span>: ${meaning}</p>`);
      return lines.length && `${lines.join("")}<p class="from">See the page Notation.</p>`;
    };

    const place = (at) => {
      const left = Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8);
      const below = at.bottom + card.offsetHeight + 12 < window.innerHeight || at.top < card.offsetHeight + 12;
      card.style.left = `${Math.max(8, left) + window.scrollX}px`;
      card.style.top = `${(below ? at.bottom + 6 : at.top - card.offsetHeight - 6) + window.scrollY}px`;
    };
    const hide = () => {
      clearTimeout(waiting);
      card.hidden = true;
      if (shown) shown.removeAttribute("aria-describedby");
      shown = undefined;
    };
    const show = (target, text) => {
      hide();
      if (window.MathJax && window.MathJax.typesetClear) window.MathJax.typesetClear([card]);
      card.innerHTML = text;
      card.hidden = false;
      shown = target;
      target.setAttribute("aria-describedby", card.id);
      const here = () => place((target.querySelector("mjx-math, svg") || target).getBoundingClientRect());
      here();
      if (window.MathJax && window.MathJax.typesetPromise) window.MathJax.typesetPromise([card]).then(here);
    };

    const article = document.querySelector("article");
    if (!article) return;
    const target = (event) => event.target.closest("a.reference.internal[href*='#'], mjx-container");
    const wait = (event, delays) => {
      const on = target(event);
      if (!on || on === shown) return;
      const formula = on.matches("mjx-container");
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const text = formula ? ofFormula(on) : ofLink(on);
        if (text) show(on, text);
      }, delays[Number(formula)]);
    };
    const leave = (event) => {
      const from = target(event);
      if (from && !from.contains(event.relatedTarget)) hide();
    };
    article.addEventListener("mouseover", (event) => wait(event, [150, 400]));
    article.addEventListener("focusin", (event) => wait(event, [0, 400]));
    article.addEventListener("mouseout", leave);
    article.addEventListener("focusout", leave);
    document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

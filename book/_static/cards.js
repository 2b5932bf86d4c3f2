// Cards for links to the glossary and the bibliography: what stands there, on hover and on focus; Escape closes.
(() => {
  const start = () => {
    const cards = window.zonbCards || {};
    const card = document.createElement("div");
    card.id = "zonb-card";
    card.setAttribute("role", "tooltip");
    card.hidden = true;
    document.body.append(card);
    let waiting;

    const show = (link, text) => {
      card.innerHTML = text;
      card.hidden = false;
      link.setAttribute("aria-describedby", card.id);
      if (window.MathJax && window.MathJax.typesetPromise) window.MathJax.typesetPromise([card]);
      const at = link.getBoundingClientRect();
      const left = Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8);
      const below = at.bottom + card.offsetHeight + 12 < window.innerHeight;
      card.style.left = `${Math.max(8, left) + window.scrollX}px`;
      card.style.top = `${(below ? at.bottom + 6 : at.top - card.offsetHeight - 6) + window.scrollY}px`;
    };
    const hide = (link) => {
      clearTimeout(waiting);
      card.hidden = true;
      link.removeAttribute("aria-describedby");
    };

    for (const link of document.querySelectorAll("article a.reference.internal[href*='#']")) {
      const [page, anchor] = link.getAttribute("href").split("#");
      const name = (page || location.pathname).split("/").pop().replace(".html", "");
      const text = cards[`${name}#${anchor}`];
      if (!text || !page) continue;
      link.addEventListener("mouseenter", () => (waiting = setTimeout(() => show(link, text), 150)));
      link.addEventListener("focus", () => show(link, text));
      for (const event of ["mouseleave", "blur"]) link.addEventListener(event, () => hide(link));
      link.addEventListener("keydown", (event) => event.key === "Escape" && hide(link));
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// What is wider than its box scrolls in it. This marks on which sides there is more, which zonb.css shows, lets the
// keyboard scroll it, and names it for a screen reader. Formulas have focus and words from MathJax.
(() => {
  const FORMULAS = "mjx-container[display='true'], span.math";
  const NAMES = {
    pre: "Code or output",
    ".zonb-figure": "Figure",
    ".pst-scrollable-table-container, .zonb-explorer details": "Table",
    ".zonb-calculator": "Calculator",
  };
  const BOXES = [FORMULAS, ...Object.keys(NAMES)].join(", ");

  const mark = (box) => {
    const formula = box.matches(FORMULAS);
    const inner = formula && box.querySelector("mjx-math");
    const hidden = (inner ? inner.getBoundingClientRect().width : box.scrollWidth) - box.clientWidth;
    if (hidden <= 1) return box.removeAttribute("data-more");
    const sides = [box.scrollLeft > 1 && "left", box.scrollLeft < hidden - 1 && "right"];
    box.dataset.more = sides.filter(Boolean).join(" ");
    if (formula) return;
    box.tabIndex = 0;
    if (!box.hasAttribute("aria-label")) {
      const [, name] = Object.entries(NAMES).find(([selector]) => box.matches(selector));
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${name}, scrolls sideways`);
    }
  };

  const start = () => {
    const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target)));
    document.querySelectorAll(BOXES).forEach((box) => sizes.observe(box));
    const moved = ({ target }) => target.matches?.(BOXES) && mark(target);
    document.addEventListener("scroll", moved, { capture: true, passive: true });
  };
  addEventListener("load", () => Promise.resolve(window.MathJax?.startup?.promise).then(start));
})();

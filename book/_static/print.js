// On paper a page is light, and its proofs, solutions and folded figures are open; afterwards all is as it was.
(() => {
  let opened = [], theme;
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    opened = [...document.querySelectorAll("details.sd-dropdown:not([open]), .tag_hide-cell > details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    opened.forEach((details) => { details.open = false; });
  });
})();

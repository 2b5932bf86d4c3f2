// The filter above the ledger: by paper, by kind and by words. Without it the page shows every claim.
(() => {
  const start = () => {
    const place = document.getElementById("zonb-ledger-filter");
    if (!place) return;
    const rows = [...document.querySelectorAll("table.zonb-table tbody tr")].map((row) => {
      const kind = row.querySelector("td strong").textContent;
      const source = row.querySelector("td").textContent;
      const papers = ["A", "B"].filter((paper) => new RegExp(`${paper} (Eq|Fig|Sec|Thm|Lemma|Cor|Prop)`).test(source));
      return { row, kind, papers, text: row.textContent.toLowerCase() };
    });
    const sections = [...document.querySelectorAll("section section")].filter((one) => one.querySelector("table.zonb-table"));
    const kinds = [...new Set(rows.map(({ kind }) => kind))].sort();
    const option = (value, text) => `<option value="${value}">${text}</option>`;
    place.innerHTML = `<form class="zonb-filter" aria-label="Filter of the ledger">
      <label>paper <select name="paper">${option("", "any")}${option("A", "A")}${option("B", "B")}${option("none", "neither (new)")}</select></label>
      <label>kind <select name="kind">${option("", "any")}${kinds.map((one) => option(one, one)).join("")}</select></label>
      <label>words <input type="search" name="words" autocomplete="off"></label>
      <output aria-live="polite"></output></form>`;
    const form = place.querySelector("form");
    const update = () => {
      const { paper, kind, words } = Object.fromEntries(new FormData(form));
      const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const one of rows) {
        const fits =
          (!paper || (paper === "none" ? !one.papers.length : one.papers.includes(paper))) &&
          (!kind || one.kind === kind) &&
          wanted.every((word) => one.text.includes(word));
        one.row.hidden = !fits;
        count += fits;
      }
      for (const section of sections) section.hidden = !section.querySelector("tbody tr:not([hidden])");
      form.querySelector("output").textContent = `${count} of ${rows.length} claims`;
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

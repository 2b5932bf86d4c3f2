// The calculator of the chapter on numbers of perturbations; the formulas are those of zonb.theory.
(() => {
  const ceil = (value) => Math.ceil(value * (1 - 1e-12));
  const rule = ({ rho, tol }) => ceil((1 + 1 / rho ** 2) / tol ** 2);
  const lemma = ({ rho, tol, V, delta }) => {
    const eps = rho * tol;
    return ceil((2 * Math.log(2 * V) + Math.log(1 / delta)) / (eps ** 2 / 4 - eps ** 3 / 6));
  };
  const eq15 = ({ rho, tol, V }) => ceil((V * Math.log(V)) / (rho * tol) ** 2);

  const start = () => {
    const form = document.getElementById("directions-calculator");
    if (!form) return;
    const field = (name) => document.getElementById(`calc-${name}`);
    const scale = { rho: 1, tol: 0.01, V: 1, delta: 0.01, d: 1 };
    const show = (name, text) => (field(name).textContent = text);
    const number = (value) => value.toLocaleString("en-GB", { maximumFractionDigits: 0 });

    const update = () => {
      const values = {};
      const problems = [];
      for (const name of Object.keys(scale)) {
        const input = field(name);
        const value = input.valueAsNumber;
        const whole = name === "V" || name === "d";
        const good = value >= Number(input.min) && value <= Number(input.max) && (!whole || Number.isInteger(value));
        input.setAttribute("aria-invalid", String(!good));
        if (!good) {
          const label = form.querySelector(`label[for=${input.id}]`).textContent;
          problems.push(`${label} must be ${whole ? "a whole number " : ""}from ${input.min} to ${input.max}.`);
        }
        values[name] = value * scale[name];
      }
      show("problem", problems.join(" "));
      const outputs = { rule, jl: lemma, eq15 };
      for (const [name, formula] of Object.entries(outputs)) {
        show(name, problems.length ? "–" : number(formula(values)));
      }
      if (problems.length) return show("advice", "");
      const P = rule(values);
      show(
        "advice",
        P < values.d
          ? `${number(P)} Gaussian directions cost ${number(2 * P)} forward passes a step.`
          : `That is not fewer than the ${number(values.d)} parameters: as many orthonormal directions give the kernel exactly.`,
      );
    };

    for (const name of ["rho", "tol"]) {
      const slider = field(`${name}-slider`);
      slider.addEventListener("input", () => (field(name).value = slider.value));
      field(name).addEventListener("input", () => (slider.value = field(name).value));
    }
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    update();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// The calculator of the chapter on numbers of perturbations; the formulas are those of zonb.theory.
(() => {
  const ceil = (value) => Math.ceil(value * (1 - 1e-12));
  const rule = ({ rho, tol }) => ceil((1 + 1 / rho ** 2) / tol ** 2);
  const lemma = ({ rho, tol, V, delta }) => {
    const eps = rho * tol;
    return ceil((2 * Math.log(2 * V) + Math.log(1 / delta)) / (eps ** 2 / 4 - eps ** 3 / 6));
  };
  const eq15 = ({ rho, tol, V }) => ceil((V * Math.log(V)) / (rho * tol) ** 2);
  const PAUSE = 400; // ms without typing before a screen reader is told

  const start = () => {
    const form = document.getElementById("directions-calculator");
    if (!form) return;
    const field = (name) => document.getElementById(`calc-${name}`);
    const scale = { rho: 1, tol: 0.01, V: 1, delta: 0.01, d: 1 };
    const show = (name, text) => (field(name).textContent = text);
    const number = (value) => value.toLocaleString("en-GB", { maximumSignificantDigits: 15 });
    let waiting;

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
          const range = `from ${number(Number(input.min))} to ${number(Number(input.max))}`;
          problems.push(`${label} must be ${whole ? "a whole number " : ""}${range}.`);
        }
        values[name] = value * scale[name];
      }
      const P = rule(values);
      const results = { rule: P, jl: lemma(values), eq15: eq15(values) };
      for (const [name, value] of Object.entries(results)) show(name, problems.length ? "–" : number(value));
      const advice =
        P < values.d
          ? `The rule: ${number(P)} Gaussian directions, ${number(2 * P)} forward passes a step.`
          : `The rule asks for ${number(P)} directions, no fewer than there are parameters: ${number(values.d)} orthonormal ones give the kernel exactly.`;
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        show("problem", problems.join(" "));
        show("advice", problems.length ? "" : advice);
      }, PAUSE);
    };

    for (const name of ["rho", "tol"]) {
      const slider = field(`${name}-slider`);
      slider.addEventListener("input", () => (field(name).value = slider.value));
      field(name).addEventListener("input", () => {
        if (field(name).value) slider.value = field(name).value;
      });
    }
    form.addEventListener("input", update);
    update();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

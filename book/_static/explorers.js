// Pictures with sliders, from the numbers that zonb.plots.explorer puts into the page.
(() => {
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C00", "#56A0D3"]; // as in zonb.plots
  const DASHES = ["7 4", "2 4", "8 3 2 3"];
  const MARKERS = ["M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "M-3-3h6v6h-6z", "M0-4l4 7h-8z", "M0-4l4 4l-4 4l-4-4z", "M0 4l4-7h-8z"];
  const SCALE = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]]; // blue, white, red
  const PAUSE = 400; // ms without moving before a screen reader is told

  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const text = (x, y, content, anchor = "middle") => svg("text", { x, y, "text-anchor": anchor }, content);

  const power = (exponent) => "10" + [...String(exponent)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
  const number = (value) => {
    if (value === null) return "none";
    const [digits, exponent] = value.toExponential(2).split("e").map(Number);
    const small = value === 0 || (exponent > -4 && exponent < 6);
    return (small ? String(Number(value.toPrecision(3))) : `${digits} × ${power(exponent)}`).replace("-", "−");
  };

  // From values to pixels, with ticks.
  const axis = (values, kind, start, end, room) => {
    const log = kind === "log";
    const known = values.filter((value) => value !== null && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
    let [low, high] = [Math.min(...known), Math.max(...known)];
    const margin = (high - low || 1) * 0.03;
    [low, high] = [low - margin, high + margin];
    const to = (value) => start + (((log ? Math.log10(value) : value) - low) / (high - low)) * (end - start);
    let ticks = [];
    if (log) {
      const step = Math.ceil((high - low) / room);
      for (let k = Math.ceil(low); k <= high; k++) if (k % step === 0) ticks.push([10 ** k, k > -3 && k < 5 ? number(10 ** k) : power(k)]);
    }
    if (ticks.length < 2) {
      const [a, b] = log ? [10 ** low, 10 ** high] : [low, high];
      const rough = (b - a) / room;
      const size = 10 ** Math.floor(Math.log10(rough));
      const step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough);
      ticks = [];
      for (let k = Math.ceil(a / step); k * step <= b; k++) ticks.push([k * step, number(k * step)]);
    }
    return { to, ticks: ticks.map(([value, label]) => [to(value), label]) };
  };

  const path = (x, y, across, up) => {
    let open = false;
    return y
      .map((value, k) => {
        const command = open ? "L" : "M";
        open = value !== null && Number.isFinite(up.to(value));
        return open ? `${command}${across.to(x[k]).toFixed(1)} ${up.to(value).toFixed(1)}` : "";
      })
      .join("");
  };
  const curve = (d, colour, dash, width) =>
    svg("path", { d, fill: "none", stroke: colour, "stroke-width": width, "stroke-dasharray": dash });

  const styles = (frame) => [
    ...Object.keys(frame.lines).map((label, k) => ({
      label, values: frame.lines[label], colour: COLOURS[k % COLOURS.length], dash: "none", marker: MARKERS[k % MARKERS.length],
    })),
    ...Object.keys(frame.guides ?? {}).map((label, k) => ({
      label, values: frame.guides[label], colour: "currentColor", dash: DASHES[k % DASHES.length],
    })),
  ];

  const drawLines = (data, frame, alike, cursor, width) => {
    const height = Math.max(240, Math.min(380, 0.6 * width));
    const [left, right, top, bottom] = [58, width - 12, 30, height - 44];
    const shown = alike.flatMap((other) => [...styles(other).map((line) => line.values), ...(other.runs ?? [])].flat());
    const across = axis(data.x, data.xscale, left, right, width / 80);
    const up = axis(shown, data.yscale, bottom, top, height / 45);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": data.name });
    for (const [x, label] of across.ticks) picture.append(svg("path", { d: `M${x} ${bottom}v5`, class: "axis" }), text(x, bottom + 18, label));
    for (const [y, label] of up.ticks)
      picture.append(svg("path", { d: `M${left} ${y}H${right}`, class: "grid" }), text(left - 7, y + 4, label, "end"));
    picture.append(svg("path", { d: `M${left} ${top - 6}V${bottom}H${right}`, class: "axis" }));
    picture.append(text(4, 14, data.ylabel, "start"), text((left + right) / 2, height - 6, data.xlabel));
    const at = across.to(data.x[cursor]);
    picture.append(svg("path", { d: `M${at} ${top - 6}V${bottom}`, class: "cursor" }));
    const ofRuns = COLOURS[Object.keys(frame.lines).length % COLOURS.length];
    for (const run of frame.runs ?? []) picture.append(curve(path(data.x, run, across, up), ofRuns, "none", 1));
    for (const { values, colour, dash, marker } of styles(frame)) {
      picture.append(curve(path(data.x, values, across, up), colour, dash, 1.8));
      const every = Math.ceil(values.length / 12);
      values.forEach((value, k) => {
        const y = value === null ? NaN : up.to(value);
        const here = `translate(${across.to(data.x[k])} ${y})`;
        if (!Number.isFinite(y)) return;
        if (marker && k % every === 0) picture.append(svg("path", { d: marker, transform: here, fill: colour }));
        if (k === cursor) picture.append(svg("circle", { r: 5, transform: here, stroke: colour, class: "reading" }));
      });
    }
    const items = styles(frame).map(({ label, values, colour, dash, marker }) => {
      const swatch = svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" }, curve("M1 7h32", colour, dash, 2));
      if (marker) swatch.append(svg("path", { d: marker, transform: "translate(17 7)", fill: colour }));
      return [swatch, label, number(values[cursor])];
    });
    if (frame.runs?.length)
      items.push([svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" }, curve("M1 7h32", ofRuns, "none", 1)), "single runs", ""]);
    return [picture, items];
  };

  const tint = (share) => {
    const place = (Math.max(-1, Math.min(1, share)) + 1) * 2;
    const from = Math.min(3, Math.floor(place));
    return `rgb(${SCALE[from].map((c, k) => Math.round(c + (SCALE[from + 1][k] - c) * (place - from)))})`;
  };
  const drawMatrices = (data, frame, alike, width) => {
    // The first matrix is the exact one: it sets the scale, and a noisy estimate may saturate it.
    const limit = Math.max(...alike.flatMap((other) => Object.values(other.matrices)[0].flat()).map(Math.abs));
    const panels = Object.entries(frame.matrices);
    const gap = 16;
    const size = Math.min(300, (width - gap * (panels.length - 1)) / panels.length);
    const begin = (width - size * panels.length - gap * (panels.length - 1)) / 2;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${size + 76}`, role: "img", "aria-label": data.name });
    panels.forEach(([title, matrix], p) => {
      const left = begin + p * (size + gap);
      const cell = size / matrix.length;
      picture.append(text(left + size / 2, 15, title));
      matrix.forEach((row, i) =>
        row.forEach((value, j) => {
          const place = { x: left + j * cell, y: 24 + i * cell, width: cell, height: cell };
          picture.append(svg("rect", { ...place, fill: tint(value / limit) }));
        }),
      );
    });
    const bar = Math.min(220, width - 100);
    for (let k = 0; k < 44; k++) {
      const place = { x: (width - bar) / 2 + (k * bar) / 44, y: size + 38, width: bar / 44, height: 12 };
      picture.append(svg("rect", { ...place, fill: tint((k - 21.5) / 21.5) }));
    }
    [`≤ ${number(-limit)}`, "0", `≥ ${number(limit)}`].forEach((label, k) => picture.append(text(width / 2 + ((k - 1) * bar) / 2, size + 66, label)));
    return [picture, []];
  };

  const build = (box, n) => {
    const data = JSON.parse(box.querySelector("script").textContent);
    const controls = data.sliders.map(({ label, values }) => ({ label, values, at: 0 }));
    const cursor = data.x && { label: data.xlabel, values: data.x.map(number), at: data.x.length - 1 };
    if (cursor) controls.push({ ...cursor, label: `read at ${cursor.label}` });
    const table = box.querySelector("details");
    const sliders = html("div", { class: "sliders" });
    const [figure, legend, note] = [html("div", { class: "picture" }), html("ul"), html("p", { class: "note" })];
    const told = html("p", { role: "status", class: "visually-hidden" });
    let waiting;

    const draw = () => {
      const chosen = controls.slice(0, data.sliders.length);
      const frame = data.frames[chosen.reduce((index, { values, at }) => index * values.length + at, 0)];
      // The axes stay while any slider but the first moves, so that motion can be compared.
      const block = data.sliders.length > 1 ? data.frames.length / chosen[0].values.length : data.frames.length;
      const alike = data.frames.slice(data.sliders.length > 1 ? chosen[0].at * block : 0).slice(0, block);
      const width = Math.max(240, figure.clientWidth);
      const place = controls.at(-1).at;
      const [picture, items] = frame.matrices
        ? drawMatrices(data, frame, alike, width)
        : drawLines(data, frame, alike, place, width);
      figure.replaceChildren(picture);
      legend.replaceChildren(...items.map(([swatch, label, value]) => html("li", {}, swatch, `${label} `, html("b", {}, value))));
      note.textContent = frame.note ?? "";
      const values = items.filter((item) => item[2]).map(([, label, value]) => `${label}: ${value}`);
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const where = controls.map(({ label, values, at }) => `${label} ${values[at]}`).join(", ");
        told.textContent = [`${where}.`, values.length ? `${values.join("; ")}.` : "", note.textContent].join(" ").trim();
      }, PAUSE);
    };

    controls.forEach((control, k) => {
      const id = `explorer-${n}-${k}`;
      const input = html("input", { type: "range", id, min: 0, max: control.values.length - 1, step: 1, value: control.at });
      const output = html("output", { for: id, "aria-live": "off" });
      const show = () => {
        control.at = input.valueAsNumber;
        output.textContent = control.values[control.at];
        input.setAttribute("aria-valuetext", control.values[control.at]);
      };
      input.addEventListener("input", () => (show(), draw()));
      show();
      sliders.append(html("p", {}, html("label", { for: id }, control.label), input, output));
    });
    table.before(html("p", { class: "title" }, data.name), sliders, figure, legend, note, told);
    let width;
    new ResizeObserver(() => {
      if (width !== figure.clientWidth) draw();
      width = figure.clientWidth;
    }).observe(figure);
  };

  const start = () => document.querySelectorAll(".zonb-explorer").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

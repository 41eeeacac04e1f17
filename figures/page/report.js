"use strict";
(() => {
  const numbers = JSON.parse(document.getElementById("numbers").textContent);

  // --- Numbers of a study: tables on demand, CSV of all rows ---

  const SHOWN = 200;
  const word = (value) => typeof value === "string";
  const shown = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : value ?? "");

  function quoted(value) {
    const text = value === null ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csvOf(table) {
    const heads = Object.entries(table.units).map(([name, unit]) => (unit && unit !== "1" ? `${name} (${unit})` : name));
    return [heads, ...table.rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }

  function element(tag, text, kind) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function tableOf(table) {
    const made = element("table");
    const head = made.createTHead().insertRow();
    const columns = Object.entries(table.units);
    const words = columns.map((_, i) => table.rows.some((row) => word(row[i])));
    columns.forEach(([name, unit], i) => {
      const cell = element("th", name, words[i] ? "word" : "");
      if (unit && unit !== "1") cell.append(element("small", unit));
      head.append(cell);
    });
    const body = made.createTBody();
    for (const row of table.rows.slice(0, SHOWN)) {
      const line = body.insertRow();
      row.forEach((value, i) => {
        const kind = words[i] ? (String(value).length > 60 ? "word long" : "word") : "";
        line.append(element("td", shown(value), kind));
      });
    }
    const scroll = element("div", undefined, "scroll");
    scroll.append(made);
    return scroll;
  }

  for (const details of document.querySelectorAll("details[data-study]")) {
    details.addEventListener("toggle", () => {
      const place = details.querySelector(".tables");
      if (!details.open || place.childElementCount) return;
      for (const [name, table] of Object.entries(numbers[details.dataset.study])) {
        const more = table.rows.length > SHOWN ? `; the first ${SHOWN} of ${table.rows.length}` : "";
        place.append(element("h3", `${name}: ${table.about}${more}`), tableOf(table));
      }
    });
  }

  for (const button of document.querySelectorAll("button[data-study]")) {
    button.addEventListener("click", () => {
      const { study, table } = button.dataset;
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([csvOf(numbers[study][table])], { type: "text/csv" }));
      link.download = `${study}-${table}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // --- Explorer ---

  const explorer = numbers["23_explorer"];
  if (!explorer) return;

  // Rows of a table as objects.
  const records = (table) => {
    const names = Object.keys(table.units);
    return table.rows.map((row) => Object.fromEntries(row.map((value, i) => [names[i], value])));
  };
  const bytes = Uint8Array.from(atob(document.getElementById("tables").textContent), (c) => c.charCodeAt(0));
  const steps = {};
  for (const { knob, value } of records(explorer.knobs)) (steps[knob] ??= []).push(value);
  const KNOBS = ["model", "chips", "batch", "stacks", "bandwidth", "latency"];
  const shape = KNOBS.map((knob) => steps[knob].length);
  const size = shape.reduce((a, b) => a * b, 1);
  const layout = Object.fromEntries(
    records(explorer.layout).map((entry) => [
      entry.metric,
      { ...entry, table: new Uint16Array(bytes.buffer, entry.start, size) },
    ]),
  );
  const constants = Object.fromEntries(records(explorer.constants).map((c) => [c.constant, c.value]));
  const memory = new Map(records(explorer.memory).map((m) => [`${m.model} ${m.chips} ${m.batch}`, m.used]));

  const at = (metric, index) => {
    const { table, low, high } = layout[metric];
    return Math.exp(low + ((high - low) * table[index]) / 65535);
  };

  // Position of a value among the steps of a knob: the step below, and the weight of the one above.
  function between(knob, value, of = (x) => x) {
    const values = steps[knob];
    let i = 0;
    while (i < values.length - 2 && value >= values[i + 1]) i += 1;
    const [a, b] = [of(values[i]), of(values[i + 1])];
    return [i, Math.min(Math.max((of(value) - a) / (b - a), 0), 1)];
  }

  // Linear in latency and in 1 / bandwidth.
  function read(metric, state) {
    let start = 0;
    for (const knob of KNOBS.slice(0, 4)) start = start * steps[knob].length + state[knob];
    const [i, u] = between("bandwidth", state.bandwidth, (x) => 1 / x);
    const [j, v] = between("latency", state.latency);
    const row = (k) => {
      const index = (start * shape[4] + k) * shape[5] + j;
      return (1 - v) * at(metric, index) + v * at(metric, index + 1);
    };
    return (1 - u) * row(i) + u * row(i + 1);
  }

  function results(state) {
    const { model, chips, batch, stacks } = Object.fromEntries(
      KNOBS.slice(0, 4).map((knob) => [knob, steps[knob][state[knob]]]),
    );
    const tpot = read("tpot", state);
    const used = memory.get(`${model} ${chips} ${batch}`);
    const usable = constants["capacity of a stack"] * constants["share of it that the engine uses"];
    const capacity = stacks * usable;
    const operation = (read("carbon.operation", state) * state.grid) / constants["carbon intensity"];
    return {
      tpot,
      user: 1 / tpot,
      system: batch / tpot,
      usd: read("usd_per_mtok", state),
      joules: read("joules_per_token", state),
      carbon: operation + read("embodied", state),
      share: used / capacity,
      capacity,
    };
  }

  const three = (x) => (x >= 999.5 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));
  const brief = (x) => String(Number(x.toPrecision(3)));
  function seconds(x) {
    const [scale, unit] = x < 1e-6 ? [1e9, "ns"] : x < 1e-3 ? [1e6, "µs"] : x < 1 ? [1e3, "ms"] : [1, "s"];
    return `${three(x * scale)} ${unit}`;
  }

  const stepped = (knob) => ({ min: 0, max: steps[knob].length - 1, step: 1, of: (x) => x });
  const log = (low, high) => ({ min: Math.log(low), max: Math.log(high), step: (Math.log(high) - Math.log(low)) / 400, of: Math.exp });
  const ends = (knob) => [steps[knob][0], steps[knob].at(-1)];
  const sliders = [
    { knob: "chips", text: "chips, tensor parallel", ...stepped("chips"), show: (x) => steps.chips[x] },
    { knob: "batch", text: "batch, requests at once", ...stepped("batch"), show: (x) => steps.batch[x] },
    { knob: "stacks", text: "memory stacks a chip", ...stepped("stacks"), show: (x) => steps.stacks[x] },
    { knob: "bandwidth", text: "bandwidth of a stack", ...log(...ends("bandwidth")), show: (x) => `${three(x / 1e12)} TB/s` },
    { knob: "latency", text: "link latency, an empty message", ...log(...ends("latency")), show: seconds },
    { knob: "grid", text: "carbon of the grid", ...log(10, 1000), show: (x) => `${three(x)} g/kWh` },
  ];

  const near = (knob, value) =>
    steps[knob].reduce((best, x, i) => (Math.abs(x - value) < Math.abs(steps[knob][best] - value) ? i : best), 0);
  const state = {
    model: Math.max(steps.model.indexOf("llama-3.1-70b"), 0),
    chips: near("chips", 8),
    batch: near("batch", 32),
    stacks: near("stacks", 8),
    bandwidth: Math.min(2.048e12, steps.bandwidth.at(-1)),
    latency: 1e-6,
    grid: constants["carbon intensity"],
  };

  const form = document.getElementById("knobs");
  const choice = element("select");
  choice.id = "knob-model";
  steps.model.forEach((name, i) => choice.append(new Option(name, i, false, i === state.model)));
  const named = element("label", "model");
  named.append(choice);
  form.append(named);
  choice.addEventListener("input", () => update({ model: Number(choice.value) }));
  for (const slider of sliders) {
    const label = element("label", slider.text);
    const value = element("output");
    const input = element("input");
    const start = state[slider.knob];
    Object.assign(input, { type: "range", id: `knob-${slider.knob}`, min: slider.min, max: slider.max, step: slider.step });
    input.value = slider.of === Math.exp ? Math.log(start) : start;
    input.addEventListener("input", () => update({ [slider.knob]: slider.of(Number(input.value)) }));
    slider.output = value;
    label.append(value, input);
    form.append(label);
  }

  const place = document.getElementById("results");
  const tile = (name, text) => {
    const made = element("div");
    const value = element("dd");
    made.append(element("dt", text), value);
    made.id = `result-${name}`;
    place.append(made);
    return (main, unit, bad = false) => {
      value.replaceChildren(main, " ", element("small", unit));
      made.className = bad ? "bad" : "";
    };
  };
  const tiles = {
    tpot: tile("tpot", "time per token"),
    user: tile("user", "speed for one user"),
    system: tile("system", "speed of all chips"),
    usd: tile("usd", "cost"),
    joules: tile("joules", "energy"),
    carbon: tile("carbon", "carbon"),
    share: tile("share", "memory in use"),
  };

  function update(changed) {
    Object.assign(state, changed);
    for (const { knob, show, output } of sliders) output.textContent = show(state[knob]);
    const found = results(state);
    const [time, unit] = seconds(found.tpot).split(" ");
    tiles.tpot(time, unit);
    tiles.user(three(found.user), "token/s");
    tiles.system(three(found.system), "token/s");
    tiles.usd(three(found.usd), "USD/Mtok");
    tiles.joules(three(found.joules), "J/token");
    tiles.carbon(three(found.carbon), "g/Mtok");
    const fits = found.share <= 1;
    tiles.share(`${three(100 * found.share)}%`, `of ${brief(found.capacity / 1e9)} GB${fits ? "" : ": does not fit"}`, !fits);
    const stacks = steps.stacks[state.stacks];
    draw("chart-bandwidth", "bandwidth", "bandwidth of a chip (TB/s)", (x) => (x * stacks) / 1e12);
    draw("chart-latency", "latency", "link latency (µs)", (x) => x * 1e6);
  }

  // Token time against one knob, all others as they are; both axes logarithmic.
  function draw(id, knob, text, scaled) {
    const [left, right, top, bottom] = [44, 312, 20, 164];
    const [low, high] = ends(knob);
    const points = Array.from({ length: 81 }, (_, i) => low * (high / low) ** (i / 80)).map((x) => [x, read("tpot", { ...state, [knob]: x })]);
    const times = points.map(([, y]) => y * 1e3);
    const [least, most] = [Math.min(...times) / 1.3, Math.max(...times) * 1.3];
    const px = (x) => left + ((right - left) * Math.log(x / low)) / Math.log(high / low);
    const py = (y) => bottom - ((bottom - top) * Math.log(y / least)) / Math.log(most / least);
    const ticks = (a, b, most_ticks) => {
      const found = [];
      for (let e = Math.floor(Math.log10(a)); e <= Math.ceil(Math.log10(b)); e += 1)
        for (const m of [1, 2, 5]) if (m * 10 ** e >= a * 0.999 && m * 10 ** e <= b * 1.001) found.push(Number((m * 10 ** e).toPrecision(2)));
      return found.length > most_ticks ? found.filter((_, i) => i % Math.ceil(found.length / most_ticks) === 0) : found;
    };
    const label = (x, y, words, anchor, size = 10) => `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="${size}" fill="#5b6169">${words}</text>`;
    const parts = [label(left - 36, 11, "time per token (ms)", "start"), label((left + right) / 2, 196, text, "middle")];
    for (const t of ticks(least, most, 5)) {
      parts.push(`<line x1="${left}" x2="${right}" y1="${py(t)}" y2="${py(t)}" stroke="#e6e8eb"/>`, label(left - 5, py(t) + 3.5, brief(t), "end"));
    }
    const factor = scaled(1);
    for (const t of ticks(low * factor, high * factor, 7)) {
      const x = px(t / factor);
      parts.push(`<line x1="${x}" x2="${x}" y1="${top}" y2="${bottom}" stroke="#e6e8eb"/>`, label(x, bottom + 14, brief(t), "middle"));
    }
    const path = points.map(([x], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(times[i]).toFixed(1)}`).join("");
    const here = read("tpot", state) * 1e3;
    parts.push(`<path d="${path}" fill="none" stroke="#0072b2" stroke-width="2"/>`);
    parts.push(`<circle cx="${px(state[knob])}" cy="${py(here)}" r="5" fill="#d55e00" stroke="#fff"/>`);
    document.getElementById(id).innerHTML = parts.join("");
  }

  update({});
})();

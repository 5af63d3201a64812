"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const palettes = {
    light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"],
    dark: ["#4FA8E0", "#FF8A4C", "#2FC79A", "#E59CC6", "#F2B53A", "#9AD4F7", "#FFFFFF"],
  };
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  function theme() { return printing ? "light" : root.dataset.theme; }
  function css(name) { return getComputedStyle(root).getPropertyValue(name).trim(); }

  // "@2" is the third colour of the theme, "@2/0.15" the same with that opacity.
  function color(word) {
    const [name, alpha] = word.slice(1).split("/");
    const named = { text: "--text", muted: "--muted", line: "--line", back: "--back" };
    const hex = name in named ? css(named[name]) : palettes[theme()][Number(name)];
    return alpha ? hex + Math.round(255 * Number(alpha)).toString(16).padStart(2, "0") : hex;
  }
  function painted(value) {
    if (typeof value === "string") return /^@(\d|text|muted|line|back)/.test(value) ? color(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v)]));
    }
    return value;
  }
  function axis(own) {
    const grid = css("--line");
    const named = painted(own || {});
    const title = { ...(named.title || {}), font: { size: 13 }, standoff: 8 };
    return { gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid, automargin: true, ...named, title };
  }
  function layout(own, width) {
    return {
      ...painted(own),
      xaxis: axis(own.xaxis), yaxis: axis(own.yaxis), autosize: !width, ...(width ? { width } : {}),
      height: own.height || 400, margin: { l: 64, r: 16, t: 12, b: 44 },
      paper_bgcolor: css("--back"), plot_bgcolor: css("--back"),
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: css("--text") },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, itemwidth: 30 },
      hoverlabel: { font: { family: getComputedStyle(document.body).fontFamily } },
    };
  }
  function words(id) {
    const found = [...document.querySelectorAll(`select[data-chart="${id}"]`)];
    const chosen = Object.fromEntries(found.map((s) => [s.dataset.switch, s.value]));
    return figures[id].switches.map(([name, all]) => chosen[name] || all[0]);
  }
  function draw(id) {
    const place = document.querySelector(`[data-plot="${id}"]`);
    const chosen = words(id);
    document.querySelector(`[data-shown="${id}"]`).textContent = chosen.join(", ");
    const variant = figures[id].variants[chosen.join("|")];
    if (!variant) { place.textContent = "no data for this choice"; return; }
    const width = printing ? 660 : undefined;
    Plotly.react(place, painted(variant.data), layout(variant.layout, width), {
      responsive: !printing, displaylogo: false, displayModeBar: printing ? false : "hover",
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: id },
    });
  }
  function drawAll() { Object.keys(figures).forEach(draw); }

  function setTheme(name) { root.dataset.theme = name; drawAll(); }
  let chosenTheme = null;
  root.dataset.theme = system.matches ? "dark" : "light";
  document.getElementById("theme").addEventListener("click", () => {
    chosenTheme = root.dataset.theme === "dark" ? "light" : "dark";
    setTheme(chosenTheme);
  });
  system.addEventListener("change", () => { if (!chosenTheme) setTheme(system.matches ? "dark" : "light"); });

  // Paper is white, whatever the screen is.
  function print(on) {
    if (on === printing) return;
    printing = on;
    root.dataset.theme = on ? "light" : chosenTheme || (system.matches ? "dark" : "light");
    drawAll();
  }
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
  window.matchMedia("print").addEventListener("change", (event) => print(event.matches));

  // The same word is chosen in all charts of a section.
  document.querySelectorAll("select[data-chart]").forEach((select) => select.addEventListener("change", () => {
    const section = select.closest("section");
    section.querySelectorAll(`select[data-switch="${select.dataset.switch}"]`).forEach((other) => {
      if ([...other.options].some((o) => o.value === select.value)) other.value = select.value;
      draw(other.dataset.chart);
    });
  }));

  // The table of times is that of the axis which its chart shows.
  const axes = document.querySelector('select[data-switch="axis"]');
  function showAxis() {
    document.querySelectorAll("[data-axis]").forEach((t) => { t.hidden = t.dataset.axis !== axes.value; });
  }
  if (axes) { axes.addEventListener("change", showAxis); showAxis(); }

  const table = document.getElementById("table"), body = table.tBodies[0];
  const filter = document.getElementById("filter"), dataset = document.getElementById("dataset");
  function show() {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const kept = wanted.every((w) => text.includes(w)) && (!dataset.value || row.dataset.dataset === dataset.value);
      row.hidden = !kept;
      count += kept;
    }
    document.getElementById("count").textContent = `${count} of ${body.rows.length} rows`;
  }
  filter.addEventListener("input", show);
  dataset.addEventListener("change", show);
  show();

  function key(row, place) {
    const cell = row.cells[place];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstElementChild.addEventListener("click", () => {
    const down = head.classList.contains("number") ? head.getAttribute("aria-sort") !== "descending" : head.getAttribute("aria-sort") === "ascending";
    heads.forEach((h) => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row, i) => [key(row, place), i, row]);
    rows.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1) || i - j);
    rows.forEach(([, , row]) => body.append(row));
  }));

  drawAll();
})();

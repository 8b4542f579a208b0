// Draws the figures of a page and lets their controls choose among precomputed states. No kernel, no other host.
(() => {
  "use strict";
  const here = document.currentScript.src;
  const plotlyAt = new URL("vendor/plotly.min.js", here).href;

  const dark = () => document.documentElement.dataset.theme === "dark";

  // ------------------------------------------------------------------------------------------------------ figures
  const template = () => {
    const text = dark() ? "#C9C9C9" : "#404040";
    const grid = dark() ? "rgba(255,255,255,0.13)" : "rgba(0,0,0,0.10)";
    const axis = {
      gridcolor: grid, linecolor: text, tickcolor: text, zeroline: false, ticks: "outside", automargin: true,
      title: { standoff: 8 },
    };
    return {
      layout: {
        font: { family: "system-ui, sans-serif", size: 13, color: text },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
        colorway: ["#D55E00", "#8A8A8A", "#0072B2", "#009E73", "#CC79A7"],
        legend: { orientation: "h", y: -0.24, x: 0, xanchor: "left", yanchor: "top" },
        hoverlabel: { font: { size: 12 } },
      },
    };
  };

  // The title stands above the plot as ordinary text, where it can wrap on a phone and be read aloud.
  function present(figure, plot) {
    const layout = { ...figure.layout, template: template(), autosize: true };
    const title = (layout.title && (layout.title.text || layout.title)) || "";
    delete layout.title;
    delete layout.width;
    const narrow = plot.clientWidth < 520;
    layout.margin = { l: narrow ? 44 : 56, r: narrow ? 8 : 16, t: 12, b: 44 };
    const panels = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key)).length;
    if (narrow && panels === 2 && layout.xaxis.domain && layout.yaxis2) stack(layout, figure.data);
    const data = figure.data.map((trace) =>
      narrow && trace.colorbar ? { ...trace, showscale: false } : trace);
    return { title, data, layout };
  }

  // Two panels side by side stand one above the other on a narrow screen.
  function stack(layout) {
    layout.xaxis = { ...layout.xaxis, domain: [0, 1], anchor: "y" };
    layout.yaxis = { ...layout.yaxis, domain: [0.56, 1] };
    layout.xaxis2 = { ...layout.xaxis2, domain: [0, 1], anchor: "y2" };
    layout.yaxis2 = { ...layout.yaxis2, domain: [0, 0.42] };
    layout.legend = { ...layout.legend, y: -0.14 };
    layout.stacked = true;
  }

  function put(target, path, value) {
    const last = path[path.length - 1];
    let at = target;
    for (const step of path.slice(0, -1)) at = at[step] ??= {};
    if (value === null) delete at[last];
    else at[last] = value;
  }

  class Shown {
    constructor(root) {
      this.root = root;
      this.plot = root.querySelector(".pn-plot");
      this.payload = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
      this.height = this.plot.style.height;
      this.heading = document.createElement("p");
      this.heading.className = "pn-figure-title";
      this.heading.setAttribute("aria-live", "polite");
      root.insertBefore(this.heading, this.plot);
      this.inputs = [...root.querySelectorAll("[data-control]")];
      for (const input of this.inputs) input.addEventListener("input", () => this.draw());
    }

    figure() {
      const { figure, controls, paths, pool, states } = this.payload;
      if (!states) return figure;
      let index = 0;
      for (const input of this.inputs) {
        const labels = controls[input.dataset.control];
        const at = input.type === "checkbox" ? Number(input.checked) : Number(input.value);
        index = index * labels.length + at;
        if (input.type === "range") {
          input.nextElementSibling.textContent = labels[at];
          input.setAttribute("aria-valuetext", labels[at]);
        }
      }
      const copy = structuredClone(figure);
      const patch = states[index];
      for (let i = 0; i < patch.length; i += 2) put(copy, paths[patch[i]], pool[patch[i + 1]]);
      return copy;
    }

    draw() {
      const { title, data, layout } = present(this.figure(), this.plot);
      this.heading.textContent = title;
      this.plot.style.height = layout.stacked ? `${Number.parseInt(this.height, 10) * 1.7}px` : this.height;
      layout.height = Number.parseInt(this.plot.style.height, 10);
      delete layout.stacked;
      window.Plotly.react(this.plot, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
      this.root.dataset.drawn = "yes";
    }
  }

  function drawAll() {
    const roots = [...document.querySelectorAll(".pn-figure")];
    if (!roots.length) return;
    const script = document.createElement("script");
    script.src = plotlyAt;
    script.onload = () => {
      const shown = roots.map((root) => new Shown(root));
      for (const one of shown) one.draw();
      new MutationObserver(() => shown.forEach((one) => one.draw()))
        .observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
      let width = window.innerWidth;
      window.addEventListener("resize", () => {
        if (width === window.innerWidth) return;  // a phone's address bar changes only the height
        width = window.innerWidth;
        shown.forEach((one) => one.draw());
      });
    };
    script.onerror = () => roots.forEach((root) => {
      root.querySelector(".pn-plot").textContent = "The figure could not be drawn: vendor/plotly.min.js is missing.";
    });
    document.head.append(script);
  }

  // ------------------------------------------------------------------------------------------------------ results
  function results(root) {
    const body = root.querySelector("tbody");
    const rows = [...body.rows];
    const count = root.querySelector("output");
    const filters = [...root.querySelectorAll("[data-filter]")];
    const filter = () => {
      const wanted = Object.fromEntries(filters.map((f) => [f.dataset.filter, f.value.trim().toLowerCase()]));
      let left = 0;
      for (const row of rows) {
        const fits = ["family", "kind", "verdict"].every((key) => !wanted[key] || row.dataset[key] === wanted[key]
            || (wanted[key] === "measured" && row.dataset[key] !== "open"))
          && wanted.text.split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word));
        row.hidden = !fits;
        left += fits;
      }
      count.textContent = `${left} of ${rows.length} claims`;
    };
    filter();
    filters.forEach((f) => f.addEventListener("input", filter));
    root.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
      const head = button.parentElement;
      const down = head.getAttribute("aria-sort") === "ascending";
      root.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const number = (text) => (text === "" || Number.isNaN(Number(text)) ? null : Number(text));
      const sorted = [...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const [p, q] = [number(x), number(y)];
        const order = p !== null && q !== null ? p - q : p !== null ? -1 : q !== null ? 1
          : x.localeCompare(y, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...sorted);
    }));
  }

  const start = () => {
    drawAll();
    document.querySelectorAll(".pn-results").forEach(results);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

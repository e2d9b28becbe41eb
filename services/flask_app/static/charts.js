// The dashboard's charts, in Vega, from the dashboard's JSON. Every chart's numbers also stand in a table beside it, so the
// charts come last: after the page is read, and drawn when they come into view.
"use strict";
const source = document.currentScript.dataset;

function load(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "quiet", "line", "accent", "alert", "field"].map((name) => [name, style.getPropertyValue("--" + name).trim()]));
}

function frame(colour, width, height) {
  const axis = { labelColor: colour.quiet, titleColor: colour.quiet, domainColor: colour.line, tickColor: colour.line, gridColor: colour.line, labelFontSize: 12 };
  return { $schema: "https://vega.github.io/schema/vega/v6.json", background: null, width, height, padding: 5, autosize: { type: "fit", contains: "padding" }, config: { axis, legend: { labelColor: colour.ink, labelFontSize: 12 }, text: { fill: colour.ink } } };
}

// A legend whose labels are the page's own texts.
function named(texts) {
  return { labels: { update: { text: { signal: `(${JSON.stringify(texts)})[datum.value]` } } } };
}

// Shares with their intervals: the random sample alone and the weighted estimate side by side.
function shares(name, rows, colour, width, texts) {
  const kinds = [["weighted", colour.accent, 6], ["sample", colour.field, -6]];
  const marks = kinds.flatMap(([kind, fill, shift]) => {
    const x = { scale: "x", field: name, band: 0.5, offset: shift };
    const known = { data: kind };
    return [
      { type: "rule", from: known, encode: { enter: { x, y: { scale: "y", field: `${kind}_low` }, y2: { scale: "y", field: `${kind}_high` }, stroke: { value: fill }, strokeWidth: { value: 2 } } } },
      { type: "symbol", from: known, encode: { enter: { x, y: { scale: "y", field: `${kind}_share` }, fill: { value: fill }, size: { value: 60 }, tooltip: { signal: `datum.${name} + ': ' + format(datum.${kind}_share, '.0%') + ' (' + format(datum.${kind}_low, '.0%') + ' – ' + format(datum.${kind}_high, '.0%') + '), ' + replace(${JSON.stringify(texts.answers)}, '…', datum.${kind}_answers)` } } } },
    ];
  });
  return {
    ...frame(colour, width, 235),
    data: [{ name: "rows", values: rows }, ...kinds.map(([kind]) => ({ name: kind, source: "rows", transform: [{ type: "filter", expr: `datum.${kind}_share !== null` }] }))],
    scales: [
      { name: "x", type: "band", domain: { data: "rows", field: name }, range: "width", padding: 0.2 },
      { name: "y", type: "linear", domain: [0, 1], range: "height" },
      { name: "kind", type: "ordinal", domain: ["weighted", "sample"], range: kinds.map((one) => one[1]) },
    ],
    axes: [
      { orient: "bottom", scale: "x", labelOverlap: true, labelLimit: 110 },
      { orient: "left", scale: "y", format: "%", grid: true, tickCount: 5 },
    ],
    marks,
    legends: [{ fill: "kind", orient: "top", direction: "horizontal", symbolType: "circle", encode: named(texts) }],
  };
}

function days(rows, colour, width, texts) {
  const kinds = ["pictures", "flags"].filter((name) => name in texts); // sets are not flagged
  return {
    ...frame(colour, width, 235),
    data: [{ name: "rows", values: rows }],
    scales: [
      { name: "x", type: "band", domain: { data: "rows", field: "day" }, range: "width", padding: 0.15 },
      { name: "y", type: "linear", domain: { data: "rows", field: "pictures" }, range: "height", nice: true, zero: true },
      { name: "kind", type: "ordinal", domain: kinds, range: [colour.accent, colour.alert] },
    ],
    axes: [
      { orient: "bottom", scale: "x", labelOverlap: "greedy", labelSeparation: 8, ticks: false },
      { orient: "left", scale: "y", grid: true, tickCount: 5, format: "d" },
    ],
    marks: kinds.map((name) => ({
      type: "rect", from: { data: "rows" },
      encode: { enter: { x: { scale: "x", field: "day" }, width: { scale: "x", band: 1 }, y: { scale: "y", field: name }, y2: { scale: "y", value: 0 }, fill: { value: name === "flags" ? colour.alert : colour.accent }, tooltip: { signal: `datum.day + ': ' + datum.pictures${kinds.length > 1 ? " + ', ⚑ ' + datum.flags" : ""}` } } },
    })),
    legends: [{ fill: "kind", orient: "top", direction: "horizontal", symbolType: "square", encode: named(texts) }],
  };
}

async function draw(place) {
  const answer = await fetch(place.dataset.url, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const rows = await answer.json();
  const kind = place.dataset.chart;
  const texts = JSON.parse(place.dataset.texts);
  const name = { releases: "release", weeks: "week", classes: "label" }[kind];
  if (kind !== "days" && !rows.some((row) => row.weighted_share !== null || row.sample_share !== null)) {
    place.hidden = true; // nothing is known yet, as the table says
    return;
  }
  const make = (width) => kind === "days" ? days(rows, colours(), width, texts) : shares(name, rows, colours(), width, texts);
  // The drawing in a part of its own: the place keeps its name and is one picture to whoever cannot see it.
  const drawing = document.createElement("div");
  drawing.setAttribute("aria-hidden", "true");
  place.replaceChildren(drawing);
  const show = () => vegaEmbed(drawing, make(Math.max(200, place.clientWidth - 10)), { mode: "vega", ast: true, actions: false, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true } });
  await show();
  let width = place.clientWidth;
  new ResizeObserver(() => { if (Math.abs(place.clientWidth - width) > 8) { width = place.clientWidth; show(); } }).observe(place);
}

const places = document.querySelectorAll("[data-chart]");
if (places.length) {
  let loaded = null;
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      loaded ??= load(source.vega).then(() => load(source.embed));
      loaded.then(() => draw(entry.target)).catch(() => { entry.target.hidden = true; }); // the table says the same
    }
  }, { rootMargin: "100px" });
  for (const place of places) seen.observe(place);
}

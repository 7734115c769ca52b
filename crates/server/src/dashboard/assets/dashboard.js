// The script of the dashboard: live numbers, charts, times in the visitor's zone, keys, copying.
// Every page works without it. It sets texts and attributes, and never moves or replaces a row.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const body = document.body;

// On a narrow screen the row of pages is wider than the window: the page that is shown is in view.
const row = $("nav.main");
const here = $("[aria-current]", row ?? body);
if (row && here) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;

// Times in the zone of the visitor; the title keeps the exact one.
const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
const localTimes = (root) => {
  for (const time of $$("time[datetime]", root)) {
    time.title = time.dateTime;
    time.textContent = format.format(new Date(time.dateTime));
  }
};
localTimes(document);

// Fields for times are in UTC without the script, and in the zone of the visitor with it.
for (const field of $$("input[type=datetime-local]")) {
  const at = new Date(`${field.value}Z`);
  if (field.value) field.value = new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  field.form.addEventListener("formdata", ({ formData }) => {
    if (field.value) formData.set(field.name, new Date(field.value).toISOString());
  });
}
for (const mark of $$("[data-utc]")) mark.hidden = true;

// A link that logs in once has its code behind the #.
const code = $("[data-code]");
if (code && location.hash.length > 1) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  code.form.submit();
}

// Times that run down.
const opened = performance.now();
const tick = () => {
  for (const cell of $$("[data-left]")) {
    const { seconds, minutes, over } = cell.closest("[data-over]").dataset;
    const left = Math.ceil((Number(cell.dataset.left) - performance.now() + opened) / 1000);
    const text = left > 119 ? minutes.replace("{}", Math.floor(left / 60)) : seconds.replace("{}", left);
    cell.textContent = left > 0 ? text : over;
    cell.classList.toggle("bad-text", left < 5);
  }
};
if ($("[data-left]")) setInterval(tick, 1000);

// Live numbers.
const box = $("#freshness");
const pause = $("#pause");
let paused = false;
let lostAt = null;
const show = () => {
  if (!box) return;
  box.hidden = false;
  const state = paused ? "paused" : lostAt ? "lost" : "live";
  pause.dataset.state = state;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = state === "lost"
    ? box.dataset.lostText.replace("{}", lostAt.toLocaleTimeString())
    : state === "paused" ? box.dataset.pausedText : box.dataset.liveText;
};
const apply = (numbers) => {
  const { version, ...rest } = numbers;
  if (version && box.dataset.version && version !== box.dataset.version) $("#outdated").hidden = false;
  for (const element of $$("[data-live]")) {
    const text = rest[element.dataset.live];
    if (text === undefined) continue;
    if (element.tagName === "polyline") element.setAttribute("points", text);
    else if (element.textContent !== text) element.textContent = text;
  }
};
let pending = {};
if (body.dataset.events && box) {
  const events = new EventSource(body.dataset.events);
  events.onopen = () => { lostAt = null; show(); };
  events.onerror = () => { lostAt ??= new Date(); show(); };
  events.onmessage = (event) => {
    Object.assign(pending, JSON.parse(event.data));
    if (paused) return;
    apply(pending);
    pending = {};
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    if (!paused) { apply(pending); pending = {}; }
    show();
  });
  // Browsers keep six connections for a host, and a hidden page needs none.
  addEventListener("pagehide", () => events.close());
  show();
}

// A part of a page that is loaded again while its job is open.
const refresh = async () => {
  const part = $("[data-refresh]");
  if (!part) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
    // A form that the visitor is about to use stays where it is.
    if (fresh && !part.contains(document.activeElement)) {
      part.replaceChildren(...fresh.childNodes);
      if (!fresh.dataset.refresh) delete part.dataset.refresh;
      localTimes(part);
    }
  } catch { /* The next try may succeed. */ }
  setTimeout(refresh, 1000);
};
setTimeout(refresh, 1000);

// Charts.
const colors = ["--accent", "--warn", "--muted", "--bad"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const script = (src) => new Promise((done, failed) => {
  const element = document.createElement("script");
  element.src = src;
  element.onload = done;
  element.onerror = failed;
  document.head.append(element);
});
const columns = (data, keys) => {
  const length = Math.max(0, ...keys.map((key) => data[key].length));
  const times = Array.from({ length }, (_, place) => data.end - (length - 1 - place) * data.step);
  return [times, ...keys.map((key) => data[key])];
};
const draw = (figure, data) => {
  const lines = figure.dataset.chart.split("|").map((line) => line.split(":"));
  const keys = lines.map(([key]) => key);
  if (figure.plot) { figure.plot.setData(columns(data, keys)); return; }
  const axis = { stroke: css("--muted"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui" };
  const series = lines.map(([, label], place) => ({ label, stroke: css(colors[place]), width: 2, points: { show: false } }));
  // Times in the language of the page, not in that of the chart's library.
  const long = figure.dataset.step < 60 ? "medium" : "short";
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: long });
  const times = (_, splits) => splits.map((second) => clock.format(new Date(second * 1000)));
  const time = { label: figure.dataset.time, value: (_, second) => second == null ? "--" : format.format(new Date(second * 1000)) };
  // Samples are a second apart, so a mark in between would say the same twice.
  const incrs = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600].filter((one) => one >= figure.dataset.step);
  const width = () => figure.clientWidth - 30;
  figure.plot = new uPlot({
    // Room on the right for half of the last time.
    width: width(), height: 190, padding: [null, 36, null, null], series: [time, ...series],
    axes: [{ ...axis, values: times, space: 90, incrs }, { ...axis, size: 64 }],
    cursor: { sync: { key: "charts" } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] } },
  }, columns(data, keys), figure);
  new ResizeObserver(() => figure.plot.setSize({ width: width(), height: 190 })).observe(figure);
};
const charts = $$("[data-chart]");
if (charts.length) {
  const load = async () => {
    if (!paused) {
      try {
        const data = await (await fetch(charts[0].dataset.src)).json();
        charts.forEach((figure) => draw(figure, data));
      } catch { /* The stream of events shows that the connection is lost. */ }
    }
    setTimeout(load, Math.max(2, Number(charts[0].dataset.step)) * 1000);
  };
  script(body.dataset.uplot).then(load);
}

// Copying. The buttons appear where it works.
if (navigator.clipboard) {
  for (const button of $$("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText($(`#${button.dataset.copy}`).textContent);
      const text = button.textContent;
      button.textContent = button.dataset.done;
      setTimeout(() => { button.textContent = text; }, 1500);
    });
  }
}

// Keys.
const links = { o: "/ui/", q: "/ui/queues", d: "/ui/dead" };
let afterG = false;
addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select, dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || field) return;
  const { key } = event;
  if (afterG && links[key]) {
    const link = $$("nav.main a").find((one) => one.getAttribute("href").endsWith(links[key]));
    if (link) location.href = link.href;
  } else if (key === "/") {
    const search = $(".filter input:not([type=hidden])") ?? $("#find-id");
    if (search) { event.preventDefault(); search.focus(); }
  } else if (key === "p" && pause) pause.click();
  else if (key === "?") $("#keys")?.showModal();
  afterG = key === "g";
});

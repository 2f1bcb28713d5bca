// What the console adds where a browser runs scripts. Nothing depends on it.
"use strict";

// Parts of a form that belong to one choice are shown with it alone: <… data-for="auth=jwt oauth2">.
function showParts(form) {
  for (const part of form.querySelectorAll("[data-for]")) {
    const shown = part.dataset.for.split("&").every((condition) => {
      const [name, values] = condition.split("=");
      const field = form.elements[name];
      return field && values.split(" ").includes(field.value);
    });
    part.hidden = !shown;
  }
}

// A value that is shown once is copied with one key.
function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  navigator.clipboard.writeText(text).then(() => {
    const before = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = before; }, 2000);
  });
}

// The most rows of the live view.
const MOST_ROWS = 200;

// The recipient of a feedback event: the address, or what stands for it.
function recipientOf(event) {
  const identities = Object.values(event.identityMap).flat();
  return (identities.find((identity) => identity.primary) || identities[0] || { id: "" }).id;
}

function reasonOf(event) {
  const { messageFailure: failure, messageExclusion: exclusion } = event.messageDeliveryFeedback;
  if (failure) return `${failure.type} ${failure.code} (${failure.category}): ${failure.reason}`;
  return exclusion ? `${exclusion.code} ${exclusion.reason}` : "";
}

// Follows the feed. What comes is put into the page once for each frame, and only what is still to be seen then.
function follow(list) {
  const template = document.getElementById("live-row").content.firstElementChild;
  const state = document.getElementById("live-state");
  const pause = document.getElementById("live-pause");
  let waiting = [];
  let isPaused = false;
  const say = (name, tone) => {
    state.textContent = state.dataset[name];
    state.className = `tag ${tone}`;
  };
  const rowOf = (item) => {
    const row = template.cloneNode(true);
    const [when, status, recipient, request, reason] = row.children;
    const time = when.firstElementChild;
    time.dateTime = time.title = item.recordedAt;
    time.textContent = item.recordedAt.slice(11, 23).replace("Z", "");
    status.firstElementChild.textContent = list.getAttribute(`data-name-${item.status}`);
    status.firstElementChild.classList.add(list.getAttribute(`data-tone-${item.status}`));
    recipient.firstElementChild.textContent = recipientOf(item.event);
    recipient.firstElementChild.href = list.dataset.messages + encodeURIComponent(item.messageId);
    request.firstElementChild.textContent = item.event.requestId;
    reason.textContent = reasonOf(item.event);
    return row;
  };
  const put = () => {
    if (isPaused || waiting.length === 0) return;
    const rows = waiting.reverse().map(rowOf);
    waiting = [];
    list.prepend(...rows);
    while (list.rows.length > MOST_ROWS) list.lastElementChild.remove();
    document.getElementById("live-list").hidden = false;
    document.getElementById("live-empty").hidden = true;
  };
  let source = null;
  let last = null;
  const tell = () => {
    if (source && source.readyState === EventSource.CLOSED) say("ended", "bad");
    else if (isPaused) say("paused", "warn");
    else if (source && source.readyState === EventSource.OPEN) say("following", "good");
    else say("waiting", "wait");
  };
  const open = () => {
    const from = new URL(list.dataset.stream, window.location.href);
    if (last) from.searchParams.set("after", last);
    source = new EventSource(from);
    source.onopen = tell;
    source.onerror = tell;
    source.addEventListener("feedback", (message) => {
      last = message.lastEventId;
      waiting.push(JSON.parse(message.data));
      // While it is paused no more is kept than will be seen.
      if (waiting.length > MOST_ROWS) waiting.shift();
      requestAnimationFrame(put);
    });
    source.addEventListener("skipped", () => { document.getElementById("live-skipped").hidden = false; });
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  open();
  // A browser has few connections for a server: a page that nobody looks at gives its own back, and goes on where it was.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (!source) open();
    tell();
  });
  document.addEventListener("submit", close);
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? pause.dataset.resume : pause.dataset.pause;
    tell();
    put();
  });
  for (const part of document.querySelectorAll("[data-live-only]")) part.hidden = false;
}

// Charts, drawn from the table of figures that the page has for everybody.
const COLORS = {
  sent: "--good", delivered: "--accent", bounce: "--bad", error: "--warn", excluded: "--wait",
  succeeded: "--good", failed: "--bad", p50: "--good", p95: "--accent", p99: "--wait",
};

function columnsOf(table) {
  const rows = [...table.tBodies[0].rows];
  const columns = { at: rows.map((row) => Number(row.dataset.at)) };
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (!head.dataset.c) return;
    const number = (text) => (text === "" ? null : Number(text));
    columns[head.dataset.c] = { label: head.textContent, values: rows.map((row) => number(row.cells[i].textContent)) };
  });
  return columns;
}

// How to take away each chart of the page.
const drawn = [];

function draw(place, columns, language) {
  const css = getComputedStyle(document.documentElement);
  // What light-dark() comes to is known of a color that is used, not of a token.
  const probe = document.createElement("i");
  place.append(probe);
  const color = (token) => { probe.style.color = `var(${token})`; return getComputedStyle(probe).color; };
  const names = place.dataset.chart.split(" ");
  const isStacked = "stacked" in place.dataset;
  const span = columns.at[columns.at.length - 1] - columns.at[0];
  const time = new Intl.DateTimeFormat(language, span > 172800 ? { timeZone: "UTC", day: "2-digit", month: "short" } : { timeZone: "UTC", hour: "2-digit", minute: "2-digit", hour12: false });
  const moment = new Intl.DateTimeFormat(language, { timeZone: "UTC", day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });
  const number = new Intl.NumberFormat(language);
  const short = new Intl.NumberFormat(language, { notation: "compact" });
  const step = columns.at[1] - columns.at[0];
  let sum = columns.at.map(() => 0);
  // Each on top of those before it: the highest is drawn first.
  const series = names.map((name) => {
    const { label, values } = columns[name];
    sum = sum.map((before, i) => before + (values[i] || 0));
    return {
      data: isStacked ? sum : values,
      options: {
        label, stroke: color(COLORS[name]), width: isStacked ? 0 : 2, spanGaps: false, points: { show: !isStacked, size: 5 },
        fill: isStacked ? color(COLORS[name]) : undefined,
        paths: isStacked ? uPlot.paths.bars({ size: [0.8, 40], align: 1 }) : undefined,
        value: (chart, value, place, i) => (i === null || i === undefined || values[i] === null ? "–" : number.format(values[i])),
      },
    };
  });
  if (isStacked) series.reverse();
  const [line, muted] = [color("--line"), color("--muted")];
  probe.remove();
  const font = `12px ${css.getPropertyValue("--font")}`;
  const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  const height = 200;
  const chart = new uPlot({
    width: place.clientWidth, height, ms: 1,
    scales: { x: { time: false, range: () => [columns.at[0], columns.at[columns.at.length - 1] + step] }, y: { range: (self, low, high) => [0, Math.max(high * 1.05, 1)] } },
    series: [{ label: "UTC", value: (self, at) => (at === null || at === undefined ? "–" : moment.format(at * 1000)) }, ...series.map((one) => one.options)],
    axes: [
      { ...axis, space: 70, incrs: [60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400], values: (self, marks) => marks.map((at) => time.format(at * 1000)) },
      { ...axis, size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7], values: (self, marks) => marks.map((n) => short.format(n)) },
    ],
    cursor: { y: false, drag: { x: false, y: false } },
  }, [columns.at, ...series.map((one) => one.data)], place);
  const observer = new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height }));
  observer.observe(place);
  drawn.push(() => {
    observer.disconnect();
    chart.destroy();
  });
}

function drawAll(part) {
  for (const takeAway of drawn.splice(0)) takeAway();
  const table = part.querySelector("#figures");
  if (!table || !window.uPlot) return;
  for (const scripted of part.querySelectorAll("[data-scripted]")) scripted.hidden = false;
  const columns = columnsOf(table);
  for (const place of part.querySelectorAll("[data-chart]")) draw(place, columns, document.documentElement.lang);
}

// What was opened stays open when its part of the page is renewed.
const opened = new Set();
document.addEventListener("toggle", (event) => {
  const { id, open } = event.target;
  if (id && open) opened.add(id);
  else opened.delete(id);
}, true);

// Of all that is in the page, and of what comes into it later.
document.addEventListener("change", (event) => {
  if (event.target.form) showParts(event.target.form);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
document.addEventListener("submit", (event) => {
  const { ask } = event.target.dataset;
  if (ask && !window.confirm(ask)) event.preventDefault();
});

// An answer that is another page, such as the one to sign in on, is not put into a part of this one.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, serverResponse } = event.detail;
  const selection = window.getSelection();
  const isSelected = !selection.isCollapsed && target.contains(selection.anchorNode);
  if (event.detail.shouldSwap && !serverResponse.includes(`id="${target.id}"`)) {
    event.detail.shouldSwap = false;
    window.location.reload();
  } else if (isSelected || target.contains(document.activeElement)) {
    // Nothing is taken away from under somebody's hand; the next time will do.
    event.detail.shouldSwap = false;
  }
});
document.addEventListener("htmx:afterSwap", () => prepare(document.getElementById("main")));

function prepare(part) {
  for (const id of opened) {
    const kept = document.getElementById(id);
    if (kept) kept.open = true;
  }
  for (const form of part.querySelectorAll("form")) showParts(form);
  drawAll(part);
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = false;
}

document.addEventListener("DOMContentLoaded", () => {
  prepare(document);
  // On a narrow screen the navigation is one row, and the present page may be past its end.
  document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  const live = document.getElementById("live");
  if (live) follow(live);
});

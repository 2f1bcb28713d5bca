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
  const source = new EventSource(list.dataset.stream);
  source.onopen = () => { if (!isPaused) say("following", "good"); };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) say("ended", "bad");
    else say("waiting", "wait");
  };
  source.addEventListener("feedback", (message) => {
    waiting.push(JSON.parse(message.data));
    // While nobody looks, or it is paused, no more is kept than will be seen.
    if (waiting.length > MOST_ROWS) waiting.shift();
    requestAnimationFrame(put);
  });
  source.addEventListener("skipped", () => { document.getElementById("live-skipped").hidden = false; });
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? pause.dataset.resume : pause.dataset.pause;
    if (isPaused) say("paused", "warn");
    else say("following", "good");
    put();
  });
  for (const part of document.querySelectorAll("[data-live-only]")) part.hidden = false;
}

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

function prepare(part) {
  for (const form of part.querySelectorAll("form")) showParts(form);
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = false;
}

document.addEventListener("DOMContentLoaded", () => {
  prepare(document);
  const live = document.getElementById("live");
  if (live) follow(live);
});

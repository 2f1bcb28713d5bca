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

document.addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form")) {
    showParts(form);
    form.addEventListener("change", () => showParts(form));
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  for (const form of document.querySelectorAll("form[data-ask]")) {
    form.addEventListener("submit", (event) => {
      if (!window.confirm(form.dataset.ask)) event.preventDefault();
    });
  }
});

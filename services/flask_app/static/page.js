// What every page does: moments in the visitor's own zone, the focus, keys, and the list of the keys.
"use strict";
document.documentElement.classList.add("scripted");

function tellTimes(root) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]:not([data-told])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
    time.dataset.told = "";
  }
}
tellTimes(document);
document.body.addEventListener("htmx:load", (event) => tellTimes(event.detail.elt.parentElement || event.detail.elt));

// What has the focus may be swapped away: then what came in its place has it.
let wasInside = false;
document.body.addEventListener("htmx:beforeSwap", (event) => { wasInside = event.detail.target.contains(document.activeElement); });
document.body.addEventListener("htmx:afterSettle", (event) => {
  if (wasInside && document.activeElement === document.body) event.detail.elt.focus();
  wasInside = false;
});

// What went wrong with a press of a button stands here until the next one; what the button belongs to stays as it is.
const trouble = document.getElementById("trouble");
document.body.addEventListener("htmx:beforeRequest", (event) => { if (event.detail.requestConfig.verb === "post") trouble.replaceChildren(); });
document.body.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "post") return;
  trouble.replaceChildren(Object.assign(document.createElement("p"), { className: "error", role: "alert", textContent: trouble.dataset.unreachable }));
});

// A phone's bar scrolls: it shows the page that one is on.
const here = document.querySelector("nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft + here.offsetWidth / 2 - here.parentElement.offsetLeft - here.parentElement.clientWidth / 2;

// A table that is wider than its card scrolls in it, by the keyboard too.
const fits = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const table of document.querySelectorAll(".card table")) fits.observe(table.closest(".card"));

for (const button of navigator.clipboard ? document.querySelectorAll("[data-copied]") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = button.dataset.copied;
  });
}

for (const field of document.querySelectorAll("[data-zone]")) field.value = new Date().getTimezoneOffset();

// An element with data-key is reached by that key: links, buttons and labels are pressed, fields get the focus.
const keys = document.getElementById("keys");
const keysOn = document.getElementById("keys-on"); // who speaks to the machine may want none (WCAG 2.1.4)
keysOn.checked = localStorage.getItem("keys") !== "off";
keysOn.addEventListener("change", () => localStorage.setItem("keys", keysOn.checked ? "on" : "off"));
const showKeys = document.getElementById("show-keys");
showKeys.hidden = false;
showKeys.addEventListener("click", tellKeys);

function tellKeys() {
  const known = new Map([["?", document.getElementById("keys-title").textContent]]);
  for (const one of document.querySelectorAll("[data-key]")) if (!known.has(one.dataset.key)) known.set(one.dataset.key, one.dataset.keyText);
  keys.querySelector("dl").replaceChildren(...[...known].flatMap(([key, text]) => {
    const term = document.createElement("dt");
    term.append(Object.assign(document.createElement("kbd"), { textContent: key }));
    return [term, Object.assign(document.createElement("dd"), { textContent: text })];
  }));
  keys.showModal();
}

document.addEventListener("keydown", (event) => {
  if (!keysOn.checked || event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  // Until the browser has drawn again, the focus is still in the list of the keys that was just closed.
  if (!keys.contains(event.target) && event.target.closest("input, select, textarea, [contenteditable]")) return;
  if (event.key === "?") {
    tellKeys();
    event.preventDefault();
    return;
  }
  const wanted = `[data-key="${CSS.escape(event.key)}"]`;
  const one = event.target.closest(".item")?.querySelector(wanted) || document.querySelector(wanted);
  if (!one) return;
  event.preventDefault();
  if (one.matches("a, button, label")) one.click();
  else one.focus();
});

// The upload page's own behaviour: preview, drag and drop, progress. Without it the form still works.
"use strict";
const form = document.getElementById("upload");
if (form) {
  const file = document.getElementById("file");
  const drop = form.querySelector(".drop");
  const preview = document.getElementById("preview");
  const invite = document.getElementById("invite");
  const progress = document.getElementById("progress");
  let url = null;

  function show() {
    if (url) URL.revokeObjectURL(url);
    const chosen = file.files[0];
    url = chosen ? URL.createObjectURL(chosen) : null;
    preview.hidden = !url;
    invite.hidden = Boolean(url);
    if (url) {
      preview.src = url;
      preview.alt = "Your picture: " + chosen.name;
    }
  }
  preview.addEventListener("error", () => { preview.hidden = true; invite.hidden = false; });
  file.addEventListener("change", () => { show(); if (file.files[0]) form.requestSubmit(); });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) {
      file.files = event.dataTransfer.files;
      show();
      form.requestSubmit();
    }
  });
  form.addEventListener("htmx:xhr:progress", (event) => {
    if (event.detail.lengthComputable) progress.value = (100 * event.detail.loaded) / event.detail.total;
  });
  form.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target !== form) return;
    progress.hidden = false;
    progress.removeAttribute("value");
    // What was said of the former picture must not stand under this one, nor be flagged for it.
    const waiting = document.createElement("p");
    waiting.className = "quiet";
    waiting.textContent = "Looking at your picture …";
    document.getElementById("answer").replaceChildren(waiting);
  });
  form.addEventListener("htmx:afterRequest", (event) => { if (event.target === form) progress.hidden = true; });
}
document.body.addEventListener("htmx:sendError", (event) => {
  const target = document.getElementById("answer");
  const said = document.createElement("p");
  said.className = "error";
  said.setAttribute("role", "alert");
  said.textContent = "The server cannot be reached. Your picture is still here: try again in a moment.";
  if (target) target.replaceChildren(said);
});

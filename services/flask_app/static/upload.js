// The upload page: choose, drop, paste or photograph pictures. Each gets a place of its own in the list at once, with the
// picture and the progress of its journey, and then its answer. Without this file the form still works.
"use strict";
const form = document.getElementById("upload");
const list = document.getElementById("pictures");
const texts = form.dataset;
const AT_ONCE = 2; // pictures that travel at the same time
const waiting = [];
let travelling = 0;

function take(files) {
  if (!files.length) return;
  for (const file of files) {
    const item = place(file);
    list.prepend(item);
    waiting.push({ file, item, key: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now() });
  }
  document.getElementById("none").hidden = true;
  next();
}

function place(file) {
  const item = document.createElement("li");
  item.className = "card item travelling";
  item.tabIndex = -1;
  const shown = document.createElement("span");
  shown.className = "shown";
  const picture = new Image();
  picture.alt = texts.yours;
  picture.src = URL.createObjectURL(file);
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
  picture.addEventListener("error", () => picture.remove());
  shown.append(picture);
  const answer = document.createElement("div");
  answer.className = "answer";
  item.append(shown, answer);
  return item;
}

function say(item, text, isError) {
  const line = document.createElement("p");
  line.textContent = text;
  line.className = isError ? "error" : "quiet";
  if (isError) line.setAttribute("role", "alert");
  item.querySelector(".answer").replaceChildren(line);
  return item.querySelector(".answer");
}

async function next() {
  if (travelling >= AT_ONCE || !waiting.length) return;
  travelling += 1;
  const { file, item, key, blob = await smaller(file) } = waiting.shift();
  try {
    await send(blob, item, key, file); // tried again, the same bytes go under the same key
  } finally {
    travelling -= 1;
    next();
  }
}

function send(blob, item, key, file) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const began = performance.now();
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.setAttribute("aria-label", texts.sending);
    say(item, texts.sending).append(bar);
    request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; });
    request.upload.addEventListener("load", () => {
      tookSeconds(blob.size, (performance.now() - began) / 1000);
      item.querySelector(".quiet").textContent = texts.waiting;
      bar.removeAttribute("value");
    });
    request.addEventListener("load", () => {
      if (request.status < 400) {
        const made = document.createElement("template");
        made.innerHTML = request.responseText;
        const answered = made.content.querySelector("li");
        answered.querySelector(".shown img")?.setAttribute("loading", "eager");
        const hadFocus = item.contains(document.activeElement);
        item.replaceWith(answered);
        if (hadFocus) answered.focus();
        htmx.process(answered);
        tellTimes(answered);
      } else {
        const made = document.createElement("template");
        made.innerHTML = request.responseText;
        const said = made.content.querySelector(".error");
        const again = [429, 502, 503, 504].includes(request.status);
        refused(item, said ? said.textContent : texts.unreachable, again, file, key, blob);
      }
      resolve();
    });
    request.addEventListener("error", () => { refused(item, texts.unreachable, true, file, key, blob); resolve(); });
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("Idempotency-Key", key); // sent again, it is taken once
    const body = new FormData();
    body.append("csrf_token", form.elements.csrf_token.value);
    body.append("file", blob, file.name || "picture.jpg");
    request.send(body);
  });
}

function refused(item, text, again, file, key, blob) {
  const answer = say(item, `${file.name || ""}${file.name ? ": " : ""}${text}`, true);
  item.classList.remove("travelling");
  const buttons = document.createElement("div");
  buttons.className = "row";
  const add = (name, deed) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "second", textContent: name });
    button.addEventListener("click", deed);
    buttons.append(button);
  };
  if (again) add(texts.again, () => {
    item.focus(); // the button goes
    item.classList.add("travelling");
    waiting.push({ file, item, key, blob });
    next();
  });
  add(texts.close, () => {
    item.remove();
    document.getElementById("file").focus();
  });
  answer.append(buttons);
}

const file = document.getElementById("file");
const camera = document.getElementById("camera");
for (const source of [file, camera]) source.addEventListener("change", () => { take(source.files); source.value = ""; });
form.addEventListener("submit", (event) => { event.preventDefault(); take(file.files); });
if (matchMedia("(pointer: coarse)").matches) {
  camera.disabled = false;
  camera.removeAttribute("tabindex");
  form.querySelector(".camera").hidden = false;
}
const drop = form.querySelector(".drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) take(files);
});

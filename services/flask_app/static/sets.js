// The page of a selection: choose, drop, paste or photograph the pictures of a set, look at them, and send them together.
// What is wrong is said before anything travels. Without this file the form still works.
"use strict";
const form = document.getElementById("choose");
const list = document.getElementById("sets");
const chosen = document.getElementById("chosen");
const said = document.getElementById("said");
const field = document.getElementById("file");
const clear = document.getElementById("clear");
const texts = JSON.parse(form.dataset.texts);
const LEAST = Number(form.dataset.least);
const MOST = Number(form.dataset.most);
const MAX_BYTES = Number(form.dataset.maxBytes);
let draft = []; // {file, tile, broken, refused, fault}: what will be sent
let looking = 0; // how often the draft was looked through; an older look's findings are worth nothing

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => name in values ? values[name] : whole);
const make = (kind, properties, ...children) => { const made = Object.assign(document.createElement(kind), properties); made.append(...children); return made; };

// Choosing

function take(files) {
  for (const file of files) {
    const one = { file, broken: false, refused: "", fault: "" };
    one.tile = tile(one);
    draft.push(one);
    chosen.append(one.tile);
  }
  if (files.length) look();
}

function tile(one) {
  const picture = make("img", { alt: "", width: 160, height: 160 });
  picture.addEventListener("error", () => { one.broken = true; picture.hidden = true; look(); });
  picture.src = URL.createObjectURL(one.file);
  const away = make("button", { type: "button", className: "remove", textContent: "×" });
  away.addEventListener("click", () => drop(one));
  return make("li", { className: "member" }, make("span", { className: "frame" }, picture, away), make("p", { className: "small" }), make("p", { className: "error small" }));
}

function drop(one) {
  const at = draft.indexOf(one);
  draft.splice(at, 1);
  URL.revokeObjectURL(one.tile.querySelector("img").src);
  one.tile.remove();
  const next = draft[Math.min(at, draft.length - 1)];
  (next ? next.tile.querySelector("button") : field).focus();
  look();
}

function empty() {
  const gone = draft;
  draft = [];
  chosen.replaceChildren();
  look();
  return gone;
}

// What is wrong with the draft, if anything, beside each picture and in one sentence.
async function look() {
  const now = ++looking;
  const found = draft.map((one) => one.refused || (one.file.size > MAX_BYTES ? texts.too_large : one.broken || !one.file.size ? texts.no_picture : ""));
  for (let second = 1; second < draft.length; second += 1) {
    for (let first = 0; first < second && !found[second]; first += 1) {
      if (await same(draft[first].file, draft[second].file)) found[second] = fill(texts.same, { number: first + 1 });
      if (now !== looking) return false;
    }
  }
  draft.forEach((one, at) => {
    const [name, fault] = one.tile.querySelectorAll("p");
    name.textContent = fill(texts.picture, { number: at + 1 });
    fault.textContent = found[at];
    one.tile.classList.toggle("faulty", Boolean(found[at]));
    one.tile.querySelector("button").setAttribute("aria-label", fill(texts.remove_one, { number: at + 1, name: one.file.name || "" }));
  });
  const numbers = found.flatMap((fault, at) => fault ? [at + 1] : []);
  const count = draft.length;
  const sentence = !count ? texts.none_chosen : count > MOST ? texts.too_many : numbers.length ? texts.faulty : count < LEAST ? texts.too_few : texts.ready;
  const ready = sentence === texts.ready;
  said.textContent = fill(sentence, { count, over: count - MOST, numbers: numbers.join(", ") });
  said.className = ready || !count || (count < LEAST && !numbers.length) ? "" : "error";
  clear.hidden = !count;
  return ready;
}

async function same(one, other) {
  if (one.size !== other.size) return false;
  if (one === other) return true;
  try {
    const [left, right] = (await Promise.all([one.arrayBuffer(), other.arrayBuffer()])).map((buffer) => new Uint8Array(buffer));
    return left.every((byte, at) => byte === right[at]);
  } catch {
    return false; // a file that went away meanwhile: sending will say so
  }
}

// Sending

async function submit() {
  if (!(await look())) {
    said.classList.add("error");
    said.focus();
    return;
  }
  const pictures = empty();
  document.getElementById("none").hidden = true;
  const item = make("li", { className: `card item set travelling${"answers" in form.dataset ? " answers" : ""}`, tabIndex: -1 }, make("div", { className: "told-of-set" }), make("ol", { className: "members" }, ...pictures.map((one) => one.tile)));
  for (const one of pictures) one.tile.querySelector("button").hidden = true;
  list.prepend(item);
  item.focus();
  say(item, texts.sending);
  const blobs = [];
  for (const one of pictures) blobs.push(await smaller(one.file));
  send(item, pictures, blobs);
}

function say(item, text, isError) {
  const line = make("p", { textContent: text, className: isError ? "error" : "label" });
  if (isError) line.setAttribute("role", "alert");
  item.querySelector(".told-of-set").replaceChildren(line);
  return item.querySelector(".told-of-set");
}

function send(item, pictures, blobs) {
  const request = new XMLHttpRequest();
  const began = performance.now();
  const bar = make("progress", { max: 1 });
  bar.setAttribute("aria-label", texts.sending);
  say(item, texts.sending).append(bar);
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; });
  request.upload.addEventListener("load", () => {
    tookSeconds(blobs.reduce((sum, blob) => sum + blob.size, 0), (performance.now() - began) / 1000);
    item.querySelector(".label").textContent = texts.waiting;
    bar.removeAttribute("value");
  });
  request.addEventListener("load", () => {
    const made = make("template", { innerHTML: request.responseText });
    const answered = made.content.querySelector("li.set");
    if (request.status < 400 && answered) {
      const known = document.getElementById(answered.id); // the same set was sent before
      if (known) known.remove();
      for (const picture of answered.querySelectorAll("img")) picture.loading = "eager";
      const hadFocus = item.contains(document.activeElement);
      item.replaceWith(answered);
      for (const one of pictures) URL.revokeObjectURL(one.tile.querySelector("img").src);
      if (hadFocus) answered.focus();
      htmx.process(answered);
      tellTimes(answered);
      return;
    }
    const error = made.content.querySelector(".error");
    for (const number of (error?.dataset.pictures || "").split(" ").filter(Boolean)) {
      pictures[number - 1].refused = error.textContent;
      pictures[number - 1].tile.classList.add("faulty");
    }
    refused(item, error ? error.textContent : texts.unreachable, [429, 502, 503, 504].includes(request.status), pictures, blobs);
  });
  request.addEventListener("error", () => refused(item, texts.unreachable, true, pictures, blobs));
  request.open("POST", form.action);
  request.setRequestHeader("HX-Request", "true");
  const body = new FormData();
  body.append("csrf_token", form.elements.csrf_token.value);
  blobs.forEach((blob, at) => body.append("file", blob, pictures[at].file.name || `${at + 1}.jpg`));
  request.send(body);
}

function refused(item, text, again, pictures, blobs) {
  item.classList.remove("travelling");
  const buttons = make("div", { className: "row" });
  const add = (name, deed) => {
    const button = make("button", { type: "button", className: "second", textContent: name });
    button.addEventListener("click", deed);
    buttons.append(button);
  };
  if (again) add(texts.again, () => {
    item.focus(); // the button goes
    item.classList.add("travelling");
    send(item, pictures, blobs); // the same set again is the same set
  });
  add(texts.change, () => {
    for (const one of pictures) {
      one.tile.querySelector("button").hidden = false;
      draft.push(one);
      chosen.append(one.tile);
    }
    item.remove();
    look();
    (pictures.find((one) => one.refused) || pictures[0]).tile.querySelector("button").focus();
  });
  add(texts.close, () => {
    for (const one of pictures) URL.revokeObjectURL(one.tile.querySelector("img").src);
    item.remove();
    field.focus();
  });
  say(item, text, true).append(buttons);
}

const camera = document.getElementById("camera");
field.required = false;
for (const source of [field, camera]) source.addEventListener("change", () => { take([...source.files]); source.value = ""; });
form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
clear.addEventListener("click", () => {
  for (const one of empty()) URL.revokeObjectURL(one.tile.querySelector("img").src);
  field.focus();
});
if (matchMedia("(pointer: coarse)").matches) {
  camera.disabled = false;
  camera.removeAttribute("tabindex");
  form.querySelector(".camera").hidden = false;
}
const place = form.querySelector(".drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    place.classList.toggle("over", name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));

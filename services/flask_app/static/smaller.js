// On a slow line, pictures are made smaller before they travel.
"use strict";
const SLOW = 60000; // bytes/s: below this a picture is made smaller before it travels
const SIDE = 1024; // px of the shorter side that stay: more than any encoder sees
let rate = Infinity; // bytes/s of the last picture

// How long so many bytes took.
function tookSeconds(bytes, seconds) {
  if (bytes > 50000) rate = bytes / seconds;
}

// On a slow line, a copy whose shorter side is SIDE; else, and where that fails, the file as it is.
async function smaller(file) {
  const line = navigator.connection || {};
  const slow = line.saveData || ["slow-2g", "2g", "3g"].includes(line.effectiveType) || rate < SLOW;
  if (!slow || file.size < 300000) return file;
  try {
    const bitmap = await createImageBitmap(file);
    const scale = SIDE / Math.min(bitmap.width, bitmap.height);
    if (scale >= 1) return file;
    const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
    const paper = canvas.getContext("2d");
    paper.fillStyle = "white"; // as the server lays what is transparent
    paper.fillRect(0, 0, canvas.width, canvas.height);
    paper.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const copy = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
    return copy.size < file.size ? copy : file;
  } catch {
    return file;
  }
}

// The page: opens songs, shows the part that is due, and listens to keys.
import {deck} from "./deck.js";
import {$, attempt, complain} from "./dom.js";
import {ask, refresh, send, session, update, working} from "./session.js";
import {choose, finish, forget, otherSide, phaseOf, pick, renderSong} from "./song.js";
import {toggle} from "./transport.js";

const SKIP_SECONDS = 5;
session.onUpdate = render;

async function render() {
  const {song, job} = session.state, ready = Boolean(song?.takes.length);
  const opening = Boolean(session.upload) || (working() && !ready);
  if (job && !working()) finish(job);
  $("open").hidden = opening || ready;
  $("work").hidden = !opening;
  $("song").hidden = opening || !ready;
  $("another").hidden = opening || !ready;
  $("limits").textContent = `MP3, WAV, FLAC, Ogg, Opus or AIFF, up to ${session.state.limits.upload} and ${session.state.limits.length}`;
  if (opening) renderWork();
  else if (ready) await renderSong();
  else forget();
}

function renderWork() {
  if (session.upload) return;
  $("work-title").textContent = session.state.song?.name ?? "Your song";
  $("phase").textContent = phaseOf(session.state.job);
  if (session.state.job.state === "waiting") $("share").removeAttribute("value");
  else $("share").value = session.state.job.share;
}

async function openFile(file) {
  complain("");
  if (!file || session.upload) return;
  if (!session.state) await refresh();
  const limit = session.state.limits;
  if (file.size > limit.upload_bytes)
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, and this studio takes up to ${limit.upload}. For larger files use \`restorer restore\`, or start the studio with a larger --max-mb.`);
  if (!file.size) throw new Error(`${file.name} is empty, or a folder. Choose one audio file.`);
  deck.pause();
  $("work-title").textContent = file.name;
  $("phase").textContent = "Uploading";
  $("share").value = 0;
  const sending = send(file, share => {
    $("share").value = share;
    $("phase").textContent = share < 1 ? `Uploading ${Math.round(share * 100)} %` : "Reading";
  });
  sending.catch(() => {});  // it is awaited below, after the page has changed
  await render();
  $("work-title").focus();
  try { await update(await sending); }
  finally {
    $("file").value = "";
    await refresh();
  }
}

async function cancel() {
  if (session.upload) session.upload.abort();
  else await update(await ask("/api/cancel", {method: "POST"}));
  if (session.state.song?.takes.length || session.upload) return;
  session.state.song = null;
  await update(await ask("/api/song", {method: "DELETE"}));
}

async function close() {
  complain("");
  deck.pause();
  session.state.song = null;
  await update(await ask("/api/song", {method: "DELETE"}));
  $("file").focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("song").hidden) return;
  const target = event.target, inField = target.matches("input[type=range], select"), onButton = target.matches("button, summary, label, input, select");
  const key = event.key.toLowerCase(), step = {arrowleft: -SKIP_SECONDS, arrowright: SKIP_SECONDS}[key];
  const group = target.closest("[role=radiogroup]");
  if (key === " " && (!onButton || group || target.matches("input[type=range]"))) toggle();
  else if (key === "a" || key === "b") choose(key);
  else if (key === "x") choose(otherSide());
  else if (group && /^arrow/.test(key)) roam(group, target, /left|up/.test(key) ? -1 : 1);
  else if (step && !inField) deck.seek(deck.currentTime + step);
  else if (key === "home" && !inField) deck.seek(0);
  else if (key === "end" && !inField) deck.seek(deck.duration);
  else if (/^[1-9]$/.test(key)) {
    const each = session.state.song.takes.find(({seed}) => seed === Number(key) - 1);
    if (each) attempt(pick)(each.name);
  } else return;
  event.preventDefault();
}

/** Arrow keys inside a group of choices choose the next one. */
function roam(group, target, step) {
  const choices = [...group.querySelectorAll("[role=radio]")], at = choices.indexOf(target);
  const next = choices[(at + step + choices.length) % choices.length];
  next.click();
  (next.isConnected ? next : group.querySelector('[aria-checked="true"]'))?.focus();
}

document.addEventListener("keydown", onKey);
$("stop").addEventListener("click", attempt(cancel));
$("task-stop").addEventListener("click", attempt(cancel));
$("another").addEventListener("click", attempt(close));
$("file").addEventListener("change", attempt(event => openFile(event.target.files[0])));

for (const name of ["dragover", "drop"]) addEventListener(name, event => event.preventDefault());
addEventListener("dragover", () => $("drop").classList.add("over"));
addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", attempt(async event => {
  $("drop").classList.remove("over");
  if (working()) throw new Error("A song is in work. Cancel it first, or wait.");
  if (event.dataTransfer.files.length > 1) throw new Error("One song at a time, please.");
  await openFile(event.dataTransfer.files[0]);
}));

refresh();

// The song on the page: its words and pictures, the takes, what is heard of them, and the downloads.
import {deck} from "./deck.js";
import {$, attempt, complain, say, sentence} from "./dom.js";
import {Lane} from "./lanes.js";
import {ask, session, update, working} from "./session.js";
import {renderTime} from "./transport.js";

const lanes = {a: new Lane($("lane-a"), deck, "a", $("timeline")), b: new Lane($("lane-b"), deck, "b")};
let side = "b", chosen = null, shown = null;  // what is heard, the take by its name, the song on the page
let wanted = null, wantedSeed = null, handled = null;  // the download and the take in work; the job whose end was told
let drawn = null, shownTakes = "", shownBrightness = "";

/** Tell how a job ended, once. */
export function finish(job) {
  if (handled === job.number) return;
  handled = job.number;
  if (job.state === "failed") complain(sentence(job.error));
  if (job.state === "cancelled") say("Cancelled");
  if (job.kind === "take" && job.state === "done") {
    const newest = session.state.song.takes.find(take => take.seed === wantedSeed);
    if (newest) chosen = newest.name;
  }
  if (job.kind === "download" && job.state === "done" && wanted) download(wanted).catch(complain);
  wanted = null;
}

/** A job's progress in words. */
export function phaseOf({state: stage, phase, share, ahead}) {
  if (stage === "waiting") return ahead > 1 ? `Waiting: ${ahead} jobs are before this one` : "Waiting: another job is before this one";
  return `${phase || "Starting"} ${share > 0 && share < 1 ? `${Math.round(share * 100)} %` : ""}`.trim();
}

/** Empty the page of its song. */
export function forget() {
  if (!shown) return;
  deck.reset(44100, 0);
  lanes.a.clear();
  lanes.b.clear();
  shown = chosen = null;
  document.title = "restorer studio";
}

export const otherSide = () => side === "a" ? "b" : "a";
const take = () => session.state.song.takes.find(each => each.name === chosen);
const takeLabel = each => `Take ${each.seed + 1}`;
const ready = () => Boolean(shown && take());

export async function renderSong() {
  const {song} = session.state, fresh = !shown;
  if (fresh) {
    shown = song;
    deck.reset(song.original.sample_rate, song.original.samples);
    deck.add("original", {url: "/api/tracks/original/audio", ...song.original});
    side = "b";
    drawn = null;
    shownTakes = shownBrightness = "";
    const top = song.original.sample_rate / 2000;
    for (const picture of document.querySelectorAll(".picture"))
      [...picture.querySelectorAll("span")].forEach((label, i) => { label.textContent = i ? `${Math.round(top / 2)}` : `${Math.round(top)} kHz`; });
    $("mix").value = 100;
  }
  if (!take()) chosen = song.takes[0].name;
  for (const each of song.takes)
    if (!deck.tracks.has(each.name)) deck.add(each.name, {url: `/api/tracks/${each.name}/audio`, ...each});
  renderParts();  // words and buttons first, pictures when they arrive
  $("lanes").setAttribute("aria-busy", true);
  try {
    if (fresh) await lanes.a.show("/api/tracks/original", song.original);
    await hear();
  } finally { $("lanes").setAttribute("aria-busy", false); }
  for (const name of [...deck.tracks.keys()])
    if (name !== "original" && !song.takes.some(each => each.name === name)) deck.remove(name);
  renderParts();
  if (fresh) $("title").focus({preventScroll: true});
}

function renderParts() {
  renderWords();
  renderTakes();
  renderBrightness();
  renderTask();
  renderTime();
}

function renderWords() {
  const {song} = session.state, {tags, facts} = song;
  const title = tags.title ? [tags.artist, tags.title].filter(Boolean).join(" – ") : song.name;
  $("title").textContent = title;
  document.title = `${title} – restorer studio`;
  $("facts").textContent = [
    tags.title ? song.name : "",
    `${facts.codec}${facts.kbps ? ` ${Math.round(facts.kbps)} kbit/s` : ""}`,
    facts.channels === 1 ? "mono" : facts.channels === 2 ? "stereo" : `${facts.channels} channels`,
    `${facts.sample_rate_hz / 1000} kHz`,
    facts.ends_hz ? `ends at ${(facts.ends_hz / 1000).toFixed(1)} kHz` : "",
  ].filter(Boolean).join(" · ");
  const notes = [...new Set([...facts.warnings, ...take().warnings])].map(sentence);
  if (facts.needs_nothing) notes.unshift("Restoring has little to give back here: " + facts.reason.replace(/: leave$/, "") + ".");
  $("notes").textContent = notes.join(" ");
  $("notes").hidden = !notes.length;
}

/** Let the chosen take and side be heard, and draw the take. */
async function hear() {
  if (!ready()) return;
  const each = take();
  if (!deck.paused) await deck.prepare(each.name);
  if (each.name !== chosen) return;
  levels();
  if (drawn !== each.name) {
    drawn = each.name;
    await lanes.b.show(`/api/tracks/${each.name}`, each);
  }
}

/** Gains of original and take: the mix, and the louder side turned down where levels are matched. */
function levels() {
  if (!ready()) return;
  const mix = $("mix").value / 100, loud = 10 ** (take().gain_db / 20), blend = 1 - mix + mix * loud;
  const matched = $("match").checked ? Math.min(1, blend) : null;
  const a = matched ?? 1, b = matched === null ? 1 : matched / blend;
  deck.setLevels(side === "a" ? {original: a, [chosen]: 0} : {original: b * (1 - mix), [chosen]: b * mix});
  const db = 20 * Math.log10(blend);
  const turned = matched === null ? "" : `; ${db > 0 ? "B" : "A"} is turned down`;
  $("match-note").textContent = Math.abs(db) < 0.05 ? "They are equally loud below the cut-off."
    : `Below the cut-off, B is ${Math.abs(db).toFixed(1)} dB ${db > 0 ? "louder" : "quieter"}${turned}.`;
  $("mix-value").textContent = `${$("mix").value} %`;
  $("mix").setAttribute("aria-valuetext", `${$("mix").value} % restored`);
  for (const name of ["a", "b"]) {
    $(`side-${name}`).setAttribute("aria-checked", side === name);
    $(`side-${name}`).tabIndex = side === name ? 0 : -1;
    $(`lane-${name}`).classList.toggle("heard", side === name);
  }
  $("lane-name").textContent = `Restored, ${takeLabel(take()).toLowerCase()}${mix < 1 ? `, mix ${$("mix").value} %` : ""}`;
  $("saved").textContent = `${takeLabel(take())}, mix ${$("mix").value} %${brightnessWords()}, tags and cover as in the original`;
}

const brightnessWords = () => take().brightness === null ? "" : `, brightness ${take().brightness}`;

export function choose(next) {
  side = next;
  levels();
  say(side === "a" ? "Original" : "Restored");
}

function renderTakes() {
  const {song, limits} = session.state, news = JSON.stringify([song.takes.map(each => each.name), chosen]);
  $("more").disabled = working() || song.takes.length >= limits.takes;
  if (news === shownTakes) return;  // a button that is replaced while it is pressed is never clicked
  shownTakes = news;
  const focused = $("takes").contains(document.activeElement) ? document.activeElement.dataset.take : null;
  const buttons = song.takes.map(each => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = each.seed + 1;
    button.dataset.take = each.name;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", takeLabel(each));
    button.setAttribute("aria-checked", each.name === chosen);
    button.tabIndex = each.name === chosen ? 0 : -1;
    button.addEventListener("click", attempt(() => pick(each.name)));
    return button;
  });
  $("takes").replaceChildren(...buttons);
  if (focused) $("takes").querySelector(`[data-take="${CSS.escape(focused)}"]`)?.focus();
}

export async function pick(name) {
  chosen = name;
  side = "b";
  renderTakes();
  renderWords();
  renderBrightness();
  say(takeLabel(take()));
  await hear();
}

async function newTake() {
  const taken = new Set(session.state.song.takes.map(each => each.seed));
  wantedSeed = [...Array(session.state.limits.takes).keys()].find(seed => !taken.has(seed));
  await requestTake(wantedSeed, null);
}

async function requestTake(seed, brightness) {
  complain("");
  wantedSeed = seed;
  await update(await ask("/api/takes", {method: "POST", body: {seed, brightness}}));
}

function renderBrightness() {
  const limit = session.state.brightness_limit, {brightness, drawn_brightness: drawn} = take();
  $("brightness-box").hidden = limit === null;
  const news = JSON.stringify([limit, brightness, drawn, chosen, working()]);
  if (limit === null || news === shownBrightness) return;  // it may be under somebody's finger
  shownBrightness = news;
  Object.assign($("brightness"), {min: -limit, max: limit, value: brightness ?? drawn, disabled: working()});
  $("as-drawn").disabled = working() || brightness === null;
  showBrightness(brightness);
}

function showBrightness(value) {
  const words = value === null ? "as drawn" : `${value > 0 ? "+" : ""}${value}`;
  $("brightness-value").textContent = words;
  $("brightness").setAttribute("aria-valuetext", words);
}

function renderTask() {
  $("task").hidden = !working();
  $("download").disabled = working();
  if (!working()) return;
  const verb = {take: "A new take", download: "Your file"}[session.state.job.kind] ?? "The song";
  $("task-phase").textContent = `${verb}: ${phaseOf(session.state.job)}`;
  if (session.state.job.state === "waiting") $("task-share").removeAttribute("value");
  else $("task-share").value = session.state.job.share;
}

async function download(settings) {
  complain("");
  const answer = await ask("/api/downloads", {method: "POST", body: settings});
  if (answer.download) {
    const link = document.createElement("a");
    link.href = `/api/downloads/${answer.download}`;
    link.download = "";
    link.click();
    say("Download started");
  } else wanted = settings;
  await update(answer);
}

for (const name of ["a", "b"]) $(`side-${name}`).addEventListener("click", () => choose(name));
$("mix").addEventListener("input", () => { side = "b"; levels(); });
$("brightness").addEventListener("input", () => showBrightness($("brightness").valueAsNumber));
$("brightness").addEventListener("change", attempt(() => requestTake(take().seed, $("brightness").valueAsNumber)));
$("as-drawn").addEventListener("click", attempt(() => requestTake(take().seed, null)));
$("match").addEventListener("change", levels);
$("more").addEventListener("click", attempt(newTake));
$("download").addEventListener("click", attempt(() => download({
  seed: take().seed, brightness: take().brightness, mix: $("mix").value / 100, format: $("format").value,
})));

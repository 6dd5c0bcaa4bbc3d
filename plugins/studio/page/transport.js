// Playing, the clock, and the position under the pointer.
import {deck} from "./deck.js";
import {$, attempt, complain} from "./dom.js";
import {clock} from "./lanes.js";

export function toggle() {
  complain("");
  return deck.paused ? deck.play() : deck.pause();
}

export function renderTime() {
  if (!deck.samples) return;
  const at = deck.currentTime, all = deck.duration;
  $("playhead").style.transform = `translateX(${at / all * $("lanes").clientWidth}px)`;
  const now = document.createElement("b");
  now.textContent = clock(at);
  $("clock").replaceChildren(now, ` / ${clock(all)}`);
  $("lanes").setAttribute("aria-valuemax", Math.round(all));
  $("lanes").setAttribute("aria-valuenow", Math.round(at));
  $("lanes").setAttribute("aria-valuetext", `${clock(at)} of ${clock(all)}`);
}

function follow() {
  renderTime();
  if (!deck.paused) requestAnimationFrame(follow);
}

deck.addEventListener("play", () => { $("play").textContent = "Pause"; follow(); });
deck.addEventListener("pause", () => { $("play").textContent = "Play"; renderTime(); });
deck.addEventListener("timeupdate", () => { if (deck.paused) renderTime(); });
deck.addEventListener("trouble", event => { deck.pause(); complain(event.detail); });

const place = event => {
  const box = $("lanes").getBoundingClientRect();
  return (event.clientX - box.left - $("lanes").clientLeft) / $("lanes").clientWidth * deck.duration;
};
let dragged = false;
$("lanes").addEventListener("pointerdown", event => {
  if (event.button !== 0) return;
  dragged = false;
  deck.seek(place(event));
  if (event.pointerType === "mouse") $("lanes").setPointerCapture(event.pointerId);
});
$("lanes").addEventListener("pointermove", event => {
  if (!$("lanes").hasPointerCapture(event.pointerId) || !event.movementX) return;
  dragged = true;
  if (deck.paused) deck.seek(place(event));
});
$("lanes").addEventListener("pointerup", event => {
  if (dragged && !deck.paused) deck.seek(place(event));  // while it plays, a drag counts where it ends
  dragged = false;
});
addEventListener("resize", renderTime);
$("play").addEventListener("click", attempt(toggle));

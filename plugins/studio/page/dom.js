// What every part of the page needs: elements by their ids, and words for its user.

export const $ = id => document.getElementById(id);

export const sentence = words => words ? words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".") : "";

/** Tell those who listen to the page instead of looking at it. */
export function say(words) { $("live").textContent = words; }

/** Show what went wrong; nothing takes it away. */
export function complain(error) {
  const words = error ? error.message ?? String(error) : "";
  $("problem").textContent = words;
  $("problem").hidden = !words;
  if (words) $("problem").scrollIntoView({block: "nearest"});
}

/** A handler whose errors are shown. */
export const attempt = action => (...values) => Promise.resolve().then(() => action(...values)).catch(complain);

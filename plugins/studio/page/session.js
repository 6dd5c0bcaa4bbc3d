// What the studio tells about this browser's session, asked for again and again.
import {complain, sentence} from "./dom.js";

const POLL_MS = 400, HEARTBEAT_MS = 20000;

/** `state` is what /api/state tells; `upload` is the request that brings a file; `onUpdate` draws both. */
export const session = {state: null, upload: null, onUpdate: null};
let timer = null;

export async function ask(path, {method = "GET", body} = {}) {
  const headers = {"X-Restorer-Studio": "1"};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try { response = await fetch(path, {method, headers, body: body && JSON.stringify(body)}); }
  catch { throw new Error("The studio does not answer. Is `restorer studio` still running?"); }
  const answer = await response.json().catch(() => ({error: `The studio answered ${response.status}.`}));
  if (!response.ok) throw new Error(sentence(answer.error));
  return answer;
}

export const working = () => ["waiting", "running"].includes(session.state?.job?.state);

export async function refresh() {
  clearTimeout(timer);
  try { await update(await ask("/api/state")); }
  catch (error) { complain(error); }
  timer = setTimeout(refresh, working() ? POLL_MS : HEARTBEAT_MS);
}

export async function update(next) {
  const before = session.state;
  session.state = next;
  if (before?.song && !next.song && !session.upload) complain("This session has ended and its files were removed. Open the song again.");
  await session.onUpdate();
  clearTimeout(timer);
  timer = setTimeout(refresh, working() ? POLL_MS : HEARTBEAT_MS);
}

/** Bring a file to the studio; `onProgress` gets the share that has been sent. */
export function send(file, onProgress) {
  const request = session.upload = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("PUT", `/api/song?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Restorer-Studio", "1");
    request.upload.onprogress = event => onProgress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* not ours */ }
      if (request.status === 202) resolve(answer);
      else reject(new Error(sentence(answer.error) || `The studio answered ${request.status}.`));
    };
    request.onerror = () => reject(new Error("The upload was broken off. Is `restorer studio` still running?"));
    request.onabort = () => reject(new Error("The upload was cancelled."));
    request.send(file);
  }).finally(() => { session.upload = null; });
}

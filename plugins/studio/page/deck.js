// Plays several tracks at one position. Each track is fetched piece by piece (16-bit WAV, HTTP ranges) and every piece
// is started at its own sample of the audio clock, so that tracks cannot drift apart and switching is a change of gains.
// To wavesurfer.js a deck looks like a media element.

const PIECE_SECONDS = 4, AHEAD_SECONDS = 9, KEPT_PIECES = 12, FADE_SECONDS = 0.004, LEAD_SECONDS = 0.03;

class Track {
  constructor(deck, {url, samples, channels, sample_rate, data_offset}) {
    Object.assign(this, {deck, url, samples, channels, rate: sample_rate, offset: data_offset});
    this.pieces = new Map();  // index -> promise of an AudioBuffer
    this.playing = new Map();  // index -> source node, or a placeholder before and after it
    this.level = 0;
  }

  attach(context, output) {
    this.gain = context.createGain();
    this.gain.gain.value = this.level;
    this.gain.connect(output);
  }

  setLevel(level) {
    this.level = level;
    this.gain?.gain.setTargetAtTime(level, this.deck.context.currentTime, FADE_SECONDS);
  }

  get pieceSamples() { return PIECE_SECONDS * this.rate; }

  piece(index) {
    if (!this.pieces.has(index)) {
      const loaded = this.fetchPiece(index);
      loaded.catch(() => this.pieces.delete(index));
      this.pieces.set(index, loaded);
      for (const old of this.pieces.keys()) {
        if (this.pieces.size <= KEPT_PIECES) break;
        if (old !== index) this.pieces.delete(old);
      }
    }
    return this.pieces.get(index);
  }

  async fetchPiece(index) {
    const first = index * this.pieceSamples, count = Math.min(this.pieceSamples, this.samples - first);
    const frame = 2 * this.channels, start = this.offset + first * frame;
    const response = await fetch(this.url, {headers: {Range: `bytes=${start}-${start + count * frame - 1}`}});
    if (response.status !== 206) throw new Error("The studio no longer has this take.");
    const numbers = new DataView(await response.arrayBuffer());
    const buffer = new AudioBuffer({length: count, numberOfChannels: this.channels, sampleRate: this.rate});
    for (let channel = 0; channel < this.channels; channel++) {
      const samples = buffer.getChannelData(channel);
      for (let i = 0; i < count; i++) samples[i] = numbers.getInt16(i * frame + 2 * channel, true) / 32768;
    }
    return buffer;
  }

  stop(when) {
    for (const source of this.playing.values()) source.stop?.(when);
    this.playing.clear();
  }
}

class Deck extends EventTarget {
  constructor() {
    super();
    // What wavesurfer.js reads of a media element.
    Object.assign(this, {src: "", currentSrc: "", volume: 1, muted: false, playbackRate: 1, seeking: false, ended: false, readyState: 4});
    this.tracks = new Map();
    this.active = new Set();
    this.paused = true;
    this.position = 0;  // in samples, while paused
    this.run = 0;
  }

  /** Forget everything and take tracks of this rate. */
  reset(rate, samples) {
    this.pause();
    for (const track of this.tracks.values()) track.gain?.disconnect();
    this.tracks.clear();
    this.active.clear();
    this.position = 0;
    this.rate = rate;
    this.samples = samples;
    if (this.context && this.context.sampleRate !== rate) {
      this.context.close();
      this.context = null;
    }
    this.emit("durationchange");
  }

  add(name, about) {
    const track = new Track(this, about);
    this.tracks.set(name, track);
    if (this.context) track.attach(this.context, this.output);
  }

  remove(name) {
    const track = this.tracks.get(name);
    track?.stop(0);
    track?.gain?.disconnect();
    this.tracks.delete(name);
    this.active.delete(name);
  }

  /** Load what a track needs to join in now. */
  async prepare(name) {
    const track = this.tracks.get(name), index = Math.floor(this.now() / track.pieceSamples);
    await track.piece(Math.min(index, Math.floor((track.samples - 1) / track.pieceSamples)));
  }

  /** Levels by name; tracks that are not named fall silent and stop. */
  setLevels(levels) {
    for (const [name, track] of this.tracks) {
      track.setLevel(levels[name] ?? 0);
      if (name in levels) this.active.add(name);
      else if (this.active.delete(name)) track.stop(this.context ? this.context.currentTime + 0.05 : 0);
    }
    this.schedule();
  }

  get duration() { return this.samples ? this.samples / this.rate : NaN; }
  get currentTime() { return this.samples ? this.now() / this.rate : 0; }
  set currentTime(seconds) { this.seek(seconds); }

  now() {
    if (this.paused) return this.position;
    return Math.max(0, Math.min(this.samples, (this.context.currentTime - this.origin) * this.rate));
  }

  seek(seconds) {
    const target = Math.max(0, Math.min(this.samples, Math.round(seconds * this.rate)));
    this.emit("seeking");
    if (this.paused) this.position = target;
    else { this.silence(); this.begin(target); }
    this.ended = false;
    this.emit("timeupdate");
    this.emit("seeked");
  }

  async play() {
    if (!this.paused || !this.samples) return;
    if (!this.context) {
      this.context = new AudioContext({sampleRate: this.rate, latencyHint: "interactive"});
      this.output = this.context.createGain();
      this.output.connect(this.context.destination);
      for (const track of this.tracks.values()) track.attach(this.context, this.output);
    }
    await this.context.resume();
    if (!this.paused) return;
    this.begin(this.position >= this.samples ? 0 : this.position);
    this.paused = this.ended = false;
    this.schedule();
    this.timer = setInterval(() => this.tick(), 200);
    this.emit("play");
  }

  pause() {
    if (this.paused) return;
    this.position = Math.round(this.now());
    this.paused = true;
    clearInterval(this.timer);
    this.silence();
    this.emit("pause");
  }

  /** Let `position` sound at a whole sample of the audio clock: between samples the browser would interpolate. */
  begin(position) {
    const start = Math.ceil((this.context.currentTime + LEAD_SECONDS) * this.rate);
    this.origin = (start - position) / this.rate;
    this.output.gain.setTargetAtTime(1, start / this.rate, FADE_SECONDS);
    this.run++;
    this.schedule();
  }

  silence() {
    const now = this.context.currentTime;
    this.run++;
    this.output.gain.cancelScheduledValues(now);
    this.output.gain.setTargetAtTime(0, now, FADE_SECONDS);
    for (const track of this.tracks.values()) track.stop(now + 0.02);
  }

  tick() {
    this.emit("timeupdate");
    if (this.now() < this.samples) { this.schedule(); return; }
    this.pause();
    this.ended = true;
    this.emit("ended");
  }

  schedule() {
    if (this.paused) return;
    for (const name of this.active) {
      const track = this.tracks.get(name), size = track.pieceSamples, at = this.now();
      const last = Math.min(track.samples - 1, at + AHEAD_SECONDS * track.rate);
      for (let index = Math.floor(at / size); index * size <= last; index++)
        if (!track.playing.has(index)) this.start(track, index);
    }
  }

  async start(track, index) {
    const run = this.run, playing = track.playing, ticket = {};
    playing.set(index, ticket);
    let buffer;
    try { buffer = await track.piece(index); }
    catch (error) {
      if (playing.get(index) === ticket) playing.delete(index);
      this.dispatchEvent(new CustomEvent("trouble", {detail: error.message}));
      return;
    }
    if (run !== this.run || this.paused || playing.get(index) !== ticket) return;
    const first = this.origin * this.rate + index * track.pieceSamples;  // on the audio clock, in samples
    const soonest = Math.ceil((this.context.currentTime + 0.01) * this.rate);
    const skipped = Math.max(0, soonest - Math.round(first));
    if (skipped >= buffer.length) return;
    const source = new AudioBufferSourceNode(this.context, {buffer});
    source.connect(track.gain);
    source.start(Math.max(Math.round(first), soonest) / this.rate, skipped / this.rate);
    source.onended = () => {
      source.disconnect();
      if (playing.get(index) === source) playing.set(index, ticket);
    };
    playing.set(index, source);
  }

  emit(name) { this.dispatchEvent(new Event(name)); }
  // The rest of what wavesurfer.js may call.
  load() {}
  removeAttribute() {}
  canPlayType() { return "maybe"; }
}

export const deck = new Deck();

// Waveforms by wavesurfer.js, and spectrograms from the numbers that the studio measured, on one time axis.
import WaveSurfer from "./wavesurfer.js";
import Timeline from "./timeline.js";

const nonce = document.getElementById("script").nonce;
// From silence to loud, light on dark and dark on light; evenly spaced.
const SHADES = {
  light: ["#fbfaf7", "#e3ecea", "#b9d6d2", "#7fb5b0", "#438b8a", "#1f5f68", "#173a4c", "#14172b"],
  dark: ["#0e1011", "#14222b", "#193d4b", "#1f6268", "#3a8d83", "#79b68f", "#c4d79d", "#fbf6cf"],
};

function palette(shades) {
  const colours = shades.map(hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({length: 256}, (_, level) => {
    const at = level / 255 * (colours.length - 1), below = Math.min(Math.floor(at), colours.length - 2);
    return colours[below].map((value, i) => value + (colours[below + 1][i] - value) * (at - below));
  });
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Lane {
  constructor(figure, deck, side, timeline) {
    Object.assign(this, {figure, deck, side, timeline});
    this.canvas = figure.querySelector("canvas");
    dark.addEventListener("change", () => this.draw());
  }

  /** Fetch and draw a track; what was drawn before stays until then. */
  async show(url, {rows, columns}) {
    const ask = this.asked = {};
    const [peaks, picture] = await Promise.all(["peaks", "spectrogram"].map(part => fetch(`${url}/${part}`)));
    if (!peaks.ok || !picture.ok) throw new Error("The studio no longer has this take.");
    const values = [await peaks.json(), new Uint8Array(await picture.arrayBuffer())];
    if (ask !== this.asked) return;
    [this.peaks, this.levels] = values;
    [this.rows, this.columns] = [rows, columns];
    this.draw();
  }

  draw() {
    if (!this.peaks) return;
    this.drawWave();
    this.drawPicture();
  }

  drawWave() {
    const colours = {waveColor: colour(`--wave-${this.side}`), progressColor: colour(`--played-${this.side}`)};
    if (this.wave) {
      this.wave.setOptions({...colours, peaks: this.peaks, duration: this.deck.duration});
      return;
    }
    const plugins = this.timeline ? [Timeline.create({container: this.timeline, height: 22, secondaryLabelOpacity: 1, style: {fontSize: "11px"}, formatTimeCallback: clock})] : [];
    this.wave = WaveSurfer.create({
      container: this.figure.querySelector(".wave"), media: this.deck, peaks: this.peaks, duration: this.deck.duration,
      height: 56, cursorWidth: 0, interact: false, hideScrollbar: true, cspNonce: nonce, plugins, ...colours,
    });
  }

  drawPicture() {
    const {rows, columns, levels, canvas} = this, shades = palette(SHADES[dark.matches ? "dark" : "light"]);
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [red, green, blue] = shades[levels[row * columns + column]];
        const at = 4 * ((rows - 1 - row) * columns + column);
        image.data[at] = red; image.data[at + 1] = green; image.data[at + 2] = blue; image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  clear() {
    this.wave?.destroy();
    this.wave = this.peaks = this.asked = null;
  }
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

"""The own synthesiser: voices by role, of detuned oscillators or of frequency modulation."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.draws import sample
from restorer.training.rendering.notes import Note
from restorer.training.rendering.oscillator import CUTOFFS_HZ, Oscillator
from restorer.training.rendering.voices import Voice, draw_voice
from restorer.transform import Float32

LONGEST_NOTE_SECONDS = 6.0
SHORTEST_SAMPLES = 200
FADE_SAMPLES = 220  # at the end of every note
FM_TOP_HZ = 20000.0
WIDTH = 0.8  # of detuned oscillators


def play_track(notes: Sequence[Note], role: str, rng: Generator, samples: int, budget_seconds: float) -> Float32:
    """Notes of one role, played by a voice that is drawn for them: (2, samples).

    Where all oscillators together would sound for longer than `budget_seconds`, there are fewer of them, and then
    fewer notes.
    """
    voice = draw_voice(role, rng)
    oscillator = Oscillator("saw" if voice.shape == "fm" else voice.shape, rng)
    sounding = sum(_held_seconds(note) + voice.release_seconds for note in notes)
    count = voice.oscillators
    while count > 1 and sounding * count > budget_seconds:
        count -= 1
    if sounding * count > budget_seconds:
        notes = sorted(sample(rng, notes, max(8, int(len(notes) * budget_seconds / sounding / count))))
    track = np.zeros((2, samples), np.float32)
    for note in notes:
        start = int(note.start_seconds * SAMPLE_RATE)
        length = min(int((_held_seconds(note) + voice.release_seconds) * SAMPLE_RATE), samples - start)
        if length >= SHORTEST_SAMPLES:
            _sound(voice, oscillator, note, count, role == "bass", rng, track[:, start : start + length])
    return track


def _held_seconds(note: Note) -> float:
    return min(note.length_seconds, LONGEST_NOTE_SECONDS)


def _sound(
    voice: Voice, oscillator: Oscillator, note: Note, count: int, central: bool, rng: Generator, out: Float32
) -> None:
    """Add a note to (2, samples)."""
    time = np.arange(out.shape[1], dtype=np.float32) / np.float32(SAMPLE_RATE)
    hz = 440 * 2 ** ((note.pitch - 69) / 12)
    envelope = _envelope(voice, note, time)
    if voice.shape == "fm":
        out += _modulated(voice, hz, time) * envelope
        return
    velocity = note.velocity / 127
    cutoffs = voice.cutoff + 1.5 * (velocity - 0.6) + voice.cutoff_envelope * np.exp(-time / voice.cutoff_decay_seconds)
    cutoffs = np.clip(cutoffs, 0, len(CUTOFFS_HZ) - 1.001).astype(np.float32)
    for number in range(count):
        semitones = voice.detune_semitones * (2 * number / (count - 1) - 1) if count > 1 else 0.0
        tone = oscillator.note(hz * 2 ** (semitones / 12), cutoffs, rng.random()) * envelope
        middle = count == 1 or central or (count % 2 == 1 and number == count // 2)
        add_panned(out, tone, 0.0 if middle else (WIDTH if number % 2 else -WIDTH))
    if voice.sub:
        out += np.sin(2 * np.pi * ((hz * time) % 1)) * envelope * voice.sub


def add_panned(out: Float32, sound: Float32, place: float) -> None:
    """Add (samples,) to (2, samples), between left (-1) and right (1): the other side is turned down."""
    out[0] += sound * (1 - max(0.0, place))
    out[1] += sound * (1 + min(0.0, place))


def _envelope(voice: Voice, note: Note, time: Float32) -> Float32:
    decay = voice.sustain + (1 - voice.sustain) * np.exp(-time / voice.decay_seconds)
    envelope = np.minimum(1, time / voice.attack_seconds) * decay * (note.velocity / 127)
    held = int(_held_seconds(note) * SAMPLE_RATE)
    if held < len(time):
        envelope[held:] *= np.exp(-(time[held:] - time[held]) / (voice.release_seconds / 4))
    fade = min(len(time), FADE_SAMPLES)
    envelope[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return envelope


def _modulated(voice: Voice, hz: float, time: Float32) -> Float32:
    """A sine whose phase another one moves, less at pitches whose sidebands would pass the top."""
    index = voice.fm_index * np.exp(-time / (voice.cutoff_decay_seconds * 2)) + 0.2
    index = index * min(1.0, FM_TOP_HZ / (hz * (1 + voice.fm_ratio * (voice.fm_index + 2))))
    modulator = np.sin(2 * np.pi * ((hz * voice.fm_ratio * time) % 1))
    return np.sin(2 * np.pi * ((hz * time) % 1) + index * modulator)

"""MIDI files, a soundfont and a stand-in for FluidSynth, all made by code, and tasks for processes."""

import os
import struct
import sys
from pathlib import Path

import mido
import numpy as np

RATE_HZ = 44100

FLUIDSYNTH = '''#!{python}
"""Plays a sine for each note, as loud as its velocity, wherever it is."""
import sys, time
mode = {mode!r}
if mode == "hang":
    time.sleep(60)
if mode == "fail":
    sys.exit("fluidsynth: error: no such luck")
import mido
import numpy as np
file = mido.MidiFile(sys.argv[-1])
sound = np.zeros((int((file.length + 0.2) * 44100), 2), "<f4")
now = 0.0
for message in file:
    now += message.time
    if message.type == "note_on" and message.velocity and mode == "play":
        start = int(now * 44100)
        time_s = np.arange(min(20000, len(sound) - start)) / 44100
        hz = 440 * 2 ** ((message.note - 69) / 12)
        tone = np.sin(2 * np.pi * hz * time_s) * np.exp(-6 * time_s) * message.velocity / 600
        sound[start : start + len(tone)] += tone[:, None]
if mode != "mute":
    sound.tofile(sys.argv[sys.argv.index("-F") + 1])
'''


def write_fluidsynth(folder: Path, mode: str = "play") -> Path:
    """A program `fluidsynth` that plays, or is silent, hangs, fails, or writes nothing ("mute")."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "fluidsynth"
    program.write_text(FLUIDSYNTH.format(python=sys.executable, mode=mode))
    program.chmod(0o755)
    return program


def write_midi(path: Path, seconds: float = 20.0, step_seconds: float = 0.25, drums: bool = True) -> Path:
    """A melody and a bass on channels 0 and 1, programs 40 and 33, with a kick on every step."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=500_000))
    for channel, program in ((0, 40), (1, 33)):
        track.append(mido.Message("program_change", channel=channel, program=program))
    ticks = round(step_seconds * 960)
    for step in range(int(seconds / step_seconds)):
        sounding = [(0, 60 + step % 12), (1, 36 + step % 5), *([(9, 36)] if drums else [])]
        for channel, pitch in sounding:
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=90))
        for number, (channel, pitch) in enumerate(sounding):
            time = 0 if number else ticks
            track.append(mido.Message("note_off", channel=channel, note=pitch, time=time))
    file.save(path)
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def soundfont(presets: list[tuple[int, int]]) -> bytes:
    """An SF2 file with such (bank, program) pairs, all of which play one looped sine of 441 Hz as A."""
    period, zeros = 100, 46
    wave = (np.sin(2 * np.pi * np.arange(20 * period) / period) * 20000).astype("<i2").tobytes() + bytes(2 * zeros)
    phdr = b"".join(
        struct.pack("<20sHHHIII", b"Preset %d" % number, program, bank, number, 0, 0, 0)
        for number, (bank, program) in enumerate([*presets, (0, 0)])
    )
    pbag = b"".join(struct.pack("<HH", number, 0) for number in range(len(presets) + 1))
    pgen = b"".join(struct.pack("<HH", 41, 0) for _ in presets) + bytes(4)  # 41: which instrument
    inst = struct.pack("<20sH", b"Sine", 0) + struct.pack("<20sH", b"EOI", 1)
    ibag = struct.pack("<HHHH", 0, 0, 2, 0)
    igen = struct.pack("<HHHHHH", 54, 1, 53, 0, 0, 0)  # 54: loop, 53: which sample
    end = 20 * period
    shdr = struct.pack("<20sIIIIIBbHH", b"Sine", 0, end, period, end - period, RATE_HZ, 69, 0, 0, 1) + bytes(46)
    records = {"phdr": phdr, "pbag": pbag, "pmod": bytes(10), "pgen": pgen, "inst": inst, "ibag": ibag}
    records |= {"imod": bytes(10), "igen": igen, "shdr": shdr}
    info = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"isng", b"EMU8000\0") + _chunk(b"INAM", b"Toy\0")
    body = b"sfbk" + _chunk(b"LIST", b"INFO" + info) + _chunk(b"LIST", b"sdta" + _chunk(b"smpl", wave))
    body += _chunk(b"LIST", b"pdta" + b"".join(_chunk(name.encode(), data) for name, data in records.items()))
    return _chunk(b"RIFF", body)


def square(number: int) -> int:
    """A task that works."""
    return number * number


def square_or_die(number: int) -> int:
    """A task that kills its process at 2."""
    if number == 2:
        os._exit(7)
    return number * number

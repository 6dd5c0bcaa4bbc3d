"""FluidSynth, a program that plays notes with a soundfont."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mido
import numpy as np
from numpy.random import Generator

from restorer.errors import ConfigError, RestorerError
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.draws import chance, whole
from restorer.training.rendering.notes import DRUM_CHANNEL, Note, by_channel
from restorer.transform import Float32

TICKS_PER_SECOND = 1000  # with 500 a beat at MIDI's usual 120 a minute
HEAD_TICKS = 10  # before the first note, so that every setting comes before it
TAIL_TICKS = 1200  # for the last note to die away
SHORTEST_TICKS = 30
PAN, VOLUME, REVERB = 10, 7, 91  # MIDI's controllers
TIMEOUT_SECONDS = 60.0
RELEASES_SECONDS = 4.0  # by which sound may outlast notes


def find_fluidsynth() -> str:
    """Where FluidSynth is.

    Raises
    ------
    ConfigError : it is not installed.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise ConfigError(
            "soundfonts are played by FluidSynth, and no program 'fluidsynth' is on the PATH; install it (Debian, "
            "Homebrew: fluidsynth), or leave --soundfont out"
        )
    return os.path.abspath(program)


def play(
    program: str,
    soundfont: Path,
    notes: Sequence[Note],
    programs: Mapping[int, int],
    kit: int,
    rng: Generator,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Float32:
    """Notes as sound, each channel with a place, a volume and a share of reverb of its own: (2, samples).

    Parameters
    ----------
    program : where FluidSynth is.
    programs : General MIDI's program of each channel; `kit` is that of the drums.
    timeout_seconds : after which FluidSynth is ended.

    Raises
    ------
    RestorerError
        FluidSynth fails, does not end, or gives no sound.
    """
    longest = int((max(n.start_seconds + n.length_seconds for n in notes) + RELEASES_SECONDS) * SAMPLE_RATE)
    with tempfile.TemporaryDirectory(prefix="restorer-") as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.raw")
        _midi_file(notes, programs, kit, rng).save(score)
        command = [program, "-n", "-i", "-q", "-o", "synth.dynamic-sample-loading=1", "-o", "synth.cpu-cores=1"]
        command += ["-T", "raw", "-O", "float", "-E", "little", "-F", str(sound), "-r", str(SAMPLE_RATE), "-g", "0.4"]
        command += ["-R", str(int(chance(rng, 0.35))), "-C", str(int(chance(rng, 0.3)))]
        _run([*command, os.path.abspath(soundfont), str(score)], timeout_seconds)
        if not sound.exists():
            raise RestorerError("FluidSynth wrote no sound")
        samples = np.fromfile(sound, "<f4", count=2 * longest)
    return samples[: len(samples) // 2 * 2].reshape(-1, 2).T.astype(np.float32)


def _run(command: list[str], timeout_seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_seconds,
            env={**os.environ, "SDL_AUDIODRIVER": "dummy", "OMP_NUM_THREADS": "1"},  # it opens no sound card
        )
    except subprocess.TimeoutExpired:
        raise RestorerError(f"FluidSynth did not end within {timeout_seconds:.0f} s") from None
    except OSError as error:
        raise RestorerError(f"FluidSynth cannot be started: {error.strerror or error}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
        raise RestorerError(f"FluidSynth ended with status {done.returncode}: {last[:200]}")


def _midi_file(notes: Sequence[Note], programs: Mapping[int, int], kit: int, rng: Generator) -> mido.MidiFile:
    events: list[tuple[int, int, mido.Message]] = []  # tick, order within it, message

    def control(channel: int, controller: int, value: int) -> None:
        events.append((0, 1, mido.Message("control_change", channel=channel, control=controller, value=value)))

    for channel in sorted(by_channel(notes)):
        number = kit if channel == DRUM_CHANNEL else programs.get(channel, 0)
        events.append((0, 0, mido.Message("program_change", channel=channel, program=number)))
        if channel != DRUM_CHANNEL:
            control(channel, PAN, whole(rng, 20, 107))
        control(channel, VOLUME, whole(rng, 78, 120))
        control(channel, REVERB, whole(rng, 0, 70))
    for note in notes:
        start = int(note.start_seconds * TICKS_PER_SECOND) + HEAD_TICKS
        end = start + max(SHORTEST_TICKS, int(note.length_seconds * TICKS_PER_SECOND))
        same = {"channel": note.channel, "note": note.pitch}
        events.append((start, 3, mido.Message("note_on", velocity=note.velocity, **same)))
        events.append((end, 2, mido.Message("note_off", velocity=0, **same)))
    events.sort(key=lambda event: event[:2])
    track, last = mido.MidiTrack(), 0
    for tick, _, message in events:
        track.append(message.copy(time=tick - last))
        last = tick
    track.append(mido.MetaMessage("end_of_track", time=TAIL_TICKS))
    file = mido.MidiFile(ticks_per_beat=TICKS_PER_SECOND // 2)
    file.tracks.append(track)
    return file

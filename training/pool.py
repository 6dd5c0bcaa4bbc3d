"""Training excerpts that never repeat: a ring of coded mixes that processes refill while others train from it.

The ring is a folder with two files, mapped into memory by everyone who uses it: `restorer pool` writes, any number of
`restorer train --pool` read. On a RAM disk neither waits for the other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restorer.errors import RestorerError
from restorer.model_checks import shown
from restorer.training.codec_settings import QUALITIES, code_earlier, levelled_round_trip
from restorer.training.mp3 import SAMPLE_RATE, Coding
from restorer.training.pairs import SILENT, at_random_level
from restorer.transform import Float32
from restorer.whole_file import whole_file

HEADROOM = 0.5  # what is stored of full scale: decoded MP3s overshoot
AGAIN = 0.1  # share of excerpts that had been coded once before


@dataclass(frozen=True)
class PoolShape:
    """How many pairs of how many samples a pool holds."""

    slots: int
    samples: int


class Pool:
    """A ring of aligned (original, MP3) pairs of one channel, as 16-bit samples.

    A slot is written as a whole: while its bandwidth is 0 it is empty or being written. `draw` has the form of
    `Pairs.draw`, so a pool can be trained from in place of pairs.
    """

    def __init__(self, folder: str | Path, shape: PoolShape):
        self.folder, self.shape = Path(folder), shape
        self._map()

    def _map(self) -> None:
        size = (self.shape.slots, 2, self.shape.samples)
        self._audio = np.memmap(self.folder / "audio.i16", np.int16, "r+", shape=size)
        self._bandwidths = np.memmap(self.folder / "bandwidths.f32", np.float32, "r+", shape=size[:1])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "shape": self.shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()

    @classmethod
    def create(cls, folder: Path, shape: PoolShape) -> "Pool":
        """Make an empty pool; one of the same shape that is there already is opened with what it holds.

        Raises
        ------
        RestorerError
            The folder holds a pool of another shape.
        """
        described = folder / "pool.json"
        if described.exists():
            pool = cls.open(folder)
            if pool.shape != shape:
                raise RestorerError(
                    f"'{folder}' holds a pool of {pool.shape.slots} pairs of {pool.shape.samples / SAMPLE_RATE:g} s; "
                    "give the same numbers or another folder"
                )
            return pool
        folder.mkdir(parents=True, exist_ok=True)
        np.memmap(folder / "audio.i16", np.int16, "w+", shape=(shape.slots, 2, shape.samples))
        np.memmap(folder / "bandwidths.f32", np.float32, "w+", shape=(shape.slots,))
        with whole_file(described) as partial:
            partial.write_text(json.dumps(asdict(shape)))
        return cls(folder, shape)

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Open a pool that `create` made.

        Raises
        ------
        RestorerError
            There is none, or it is damaged.
        """
        described = folder / "pool.json"
        if not described.exists():
            raise RestorerError(f"no pool at '{folder}'; make one with: restorer pool {folder} MUSIC_DIR")
        try:
            fields = json.loads(described.read_text(encoding="utf-8"))
            shape = PoolShape(int(fields["slots"]), int(fields["samples"]))
            return cls(folder, shape)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise RestorerError(f"the pool '{folder}' is damaged ({shown(str(error))}); delete it") from None

    @property
    def filled(self) -> int:
        """Slots that hold a pair."""
        return int(np.count_nonzero(self._bandwidths))

    def write(self, slot: int, original: Float32, coded: Float32, bandwidth_hz: float) -> None:
        """Replace the pair in a slot, (samples,) each."""
        self._bandwidths[slot] = 0
        for row, audio in enumerate((original, coded)):
            self._audio[slot, row] = np.rint(audio * (HEADROOM * 32767)).clip(-32768, 32767)
        self._bandwidths[slot] = bandwidth_hz

    def read(self, slot: int, start: int, samples: int) -> tuple[Float32, Float32, float] | None:
        """Part of the pair in a slot, original first, and its bandwidth; None if it was written meanwhile."""
        bandwidth = float(self._bandwidths[slot])
        audio = self._audio[slot, :, start : start + samples] / np.float32(HEADROOM * 32767)
        if not bandwidth or bandwidth != float(self._bandwidths[slot]):
            return None
        return audio[0], audio[1], bandwidth

    def draw(
        self, index: int, samples: int, seed: int = 0, codings: tuple[str, ...] = (), *, in_turn: bool = False
    ) -> tuple[Float32, Float32, float]:
        """Draw an excerpt as `Pairs.draw` does, from what the pool holds at this moment; it chose the codings.

        In turn: as many indices in a row as the full pool has slots read each of them once.

        Raises
        ------
        RestorerError
            The pool is empty, or its pairs are shorter than the excerpt.
        """
        if samples > self.shape.samples:
            raise RestorerError(
                f"the pool '{self.folder}' holds pairs of {self.shape.samples / SAMPLE_RATE:g} s, and the config's "
                f"excerpts last {samples / SAMPLE_RATE:.1f} s; make one with longer pairs (restorer pool --seconds)"
            )
        rng = np.random.default_rng([seed, index])
        for attempt in range(256):
            slot = int(rng.integers(self.shape.slots))
            if in_turn and not attempt:
                slot = int(np.random.default_rng(seed).permutation(self.shape.slots)[index % self.shape.slots])
            pair = self.read(slot, int(rng.integers(self.shape.samples - samples + 1)), samples)
            if pair is not None and np.abs(pair[0]).max() > SILENT:
                original, coded, bandwidth = pair
                return *at_random_level(original, coded, rng), bandwidth
        raise RestorerError(f"the pool '{self.folder}' is nearly empty; start restorer pool, or wait for it")


def code_pairs(
    audio: Float32, codings: list[Coding], rng: np.random.Generator, count: int
) -> list[tuple[Float32, Float32]]:
    """Code (2, samples) in `count` ways drawn from `codings`; pairs (original, MP3) of one channel, two if stereo."""
    pairs = []
    given = code_earlier(audio, rng) if rng.random() < AGAIN else audio
    for index in rng.choice(len(codings), count, replace=count > len(codings)):
        coded = levelled_round_trip(given, codings[index], int(rng.choice(QUALITIES)))
        original = audio if codings[index].stereo else audio.mean(axis=0, keepdims=True)
        pairs += list(zip(original, coded, strict=True))
    return pairs

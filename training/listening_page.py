"""A listening test as one HTML file: excerpts, their versions, and the page that plays them unlabelled.

Nothing in the page tells the versions apart: each has a random token, and the table from token to condition
is a separate file, the key. Absolute ratings of isolated excerpts, as in paper 3.4.5.
"""

import base64
import hashlib
import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from restorer.errors import RestorerError
from restorer.training.evaluation_data import Piece, read_excerpt
from restorer.training.mp3 import SAMPLE_RATE
from restorer.transform import Float32

KEY_FORMAT = "restorer listening-test key"
FORMAT_VERSION = 2  # 1 had one model, whatever its kind
WORDS = ("very bad", "poor", "fair", "good", "excellent")  # ratings 1 to 5, paper 3.4.5
KEY_FIELDS = ("condition", "kbps", "excerpt", "take_seed", "clipped_samples")
FADE_SAMPLES = 441  # against clicks at the cuts, alike in every version
QUIETEST_RMS = 10 ** (-50 / 20)  # quieter stretches say nothing about quality


class Restores(Protocol):
    """What this module needs of a `Restorer`."""

    def __call__(self, audio: Float32, sample_rate: int, seed: int = 0) -> Float32: ...


@dataclass(frozen=True)
class Place:
    """An excerpt by its place in a song, in samples at 44.1 kHz."""

    piece: Piece
    start: int
    samples: int


@dataclass(frozen=True)
class Version:
    """One excerpt in one condition: "original", "mp3", "det" or "sto"; `pcm` is (samples,) int16."""

    condition: str
    kbps: int | None
    excerpt: int
    take_seed: int | None
    clipped_samples: int
    pcm: NDArray[np.int16]


def choose_places(
    pieces: Sequence[Piece], count: int, seconds: float, seed: int, normalise: bool = False
) -> list[Place]:
    """Choose `count` excerpts among those `restorer evaluate` measures, each of another song.

    More excerpts than songs are several of each, at the places of its `--excerpts-per-song`.

    Raises
    ------
    RestorerError : the songs hold fewer excerpts that are not silent.
    """
    rng = np.random.default_rng(seed)
    long_enough = [piece for piece in pieces if piece.samples >= round(seconds * SAMPLE_RATE)]
    order = [long_enough[index] for index in rng.permutation(len(long_enough))]
    places: list[Place] = []
    most = max((piece.excerpts(count, seconds) for piece in order), default=0)
    for per_song in range(min(most, -(-count // max(1, len(order)))), most + 1):
        places = []
        for number in range(per_song):
            for piece in order:
                share = piece.excerpts(per_song, seconds)
                if number < share and len(places) < count:
                    place = Place(piece, *piece.bounds(number, share, seconds))
                    if _is_audible(place, normalise):
                        places.append(place)
        if len(places) == count:
            return places
    raise RestorerError(
        f"found only {len(places)} of {count} excerpts of {seconds:g} s with sound in them, in "
        f"{len(pieces)} songs; ask for fewer or shorter ones (--excerpts, --seconds) or give more music"
    )


def _is_audible(place: Place, normalise: bool) -> bool:
    coding = place.piece.codings[0]
    original = read_excerpt(place.piece, coding, place.start, place.samples, normalise).original
    return float(np.sqrt(np.mean(np.square(original, dtype=np.float64)))) >= QUIETEST_RMS


def make_versions(
    places: Sequence[Place], kbps: Sequence[int], models: Mapping[str, Restores], seed: int, normalise: bool = False
) -> Iterator[Version]:
    """Every excerpt as original, as mono MP3 at each bitrate, and as each model restores that MP3.

    `models` are by condition: "det" has one restoration, of "sto" one random take is drawn for each MP3. No version
    is made louder or softer than the others; samples beyond full scale are limited, as players do, and counted.
    `normalise` is that of `read_excerpt`.
    """
    rng = np.random.default_rng([seed, 1])
    for index, place in enumerate(places):
        for rate in kbps:
            excerpt = read_excerpt(place.piece, f"{rate}m", place.start, place.samples, normalise)
            if rate == kbps[0]:
                yield _version("original", None, index, None, excerpt.original[0])
            yield _version("mp3", rate, index, None, excerpt.coded[0])
            take = int(rng.integers(2**32))
            for condition, restore in models.items():
                restored = restore(excerpt.heard[0], SAMPLE_RATE, seed=take)
                yield _version(condition, rate, index, take if condition == "sto" else None, excerpt.inside(restored))


def _version(condition: str, kbps: int | None, excerpt: int, take_seed: int | None, audio: Float32) -> Version:
    """Fade the ends of (samples,) audio and round it to 16 bits."""
    faded = audio.astype(np.float64)
    clipped = int(np.count_nonzero(np.abs(faded) > 1))
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE_SAMPLES)) ** 2
    faded[:FADE_SAMPLES] *= ramp
    faded[-FADE_SAMPLES:] *= ramp[::-1]
    pcm = np.rint(np.clip(faded, -1, 1) * 32767).astype(np.int16)
    return Version(condition, kbps, excerpt, take_seed, clipped, pcm)


def assemble(
    versions: Sequence[Version], places: Sequence[Place], facts: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    """Put the versions into a page and the table of what they are into a key.

    Tokens are new each time, so that nobody can work them out from a seed; the page holds the versions in the
    order of their tokens, and shuffles them again for each listener.

    Returns
    -------
    page : the HTML file, UTF-8.
    key : for json.dump; `facts` about how the test was made are kept in it.
    """
    test_id = secrets.token_hex(4)
    tokens = {secrets.token_hex(6): version for version in versions}
    items = [{"id": token, "audio": _data_uri(tokens[token].pcm)} for token in sorted(tokens)]
    seconds = len(versions[0].pcm) / SAMPLE_RATE
    key = {
        "format": KEY_FORMAT,
        "format_version": FORMAT_VERSION,
        "test": test_id,
        **facts,
        "excerpts": [{"song": place.piece.id, "start_seconds": place.start / SAMPLE_RATE} for place in places],
        "items": {
            token: {name: getattr(version, name) for name in KEY_FIELDS}
            for token, version in sorted(tokens.items(), key=lambda item: item[0])
        },
    }
    return fill_template({"id": test_id, "seconds": seconds, "items": items}), key


def _data_uri(pcm: NDArray[np.int16]) -> str:
    """A (samples,) int16 signal as FLAC in a data URI: lossless, about half of WAV's size."""
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def fill_template(test: dict[str, Any]) -> bytes:
    """The page with its test inside, and with a policy that lets no browser load or send anything.

    The policy names the page's own script and style by their hashes.
    """
    page = files("restorer.training").joinpath("pages/listening_test.html").read_text(encoding="utf-8")
    for name, tag in (("@SCRIPT_HASH@", "script"), ("@STYLE_HASH@", "style")):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        if content is None:
            raise RestorerError(f"the page template has lost its <{tag}>; reinstall restorer")
        digest = hashlib.sha256(content[1].encode("utf-8")).digest()
        page = page.replace(name, "sha256-" + base64.b64encode(digest).decode("ascii"))
    return page.replace("@TEST@", json.dumps(test).replace("<", "\\u003c")).encode("utf-8")

"""`restorer demo`: music made by code, its MP3 at 32 kbit/s, the restoration, and a picture of all three."""

from importlib.resources import files
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from restorer.errors import AudioFileError, ConfigError
from restorer.lame import encode_mp3
from restorer.whole_file import whole_file

SAMPLE_RATE = 44100
BITRATE_KBPS = 32
BUNDLED_SEED = 0
NAMES = ("original.wav", "compressed.mp3", "restored.wav", "spectrograms.png")


@click.command("demo")
@click.argument("out_dir", default="restorer-demo", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=BUNDLED_SEED, show_default=True, type=click.IntRange(0), help="Which piece of music.")
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier demo.")
def demo(out_dir: Path, seed: int, device: str, overwrite: bool) -> None:
    """Show what restoring does, without any file of yours.

    Makes a piece of music, codes it to MP3 at 32 kbit/s, restores it, and writes original.wav,
    compressed.mp3, restored.wav and spectrograms.png to OUT_DIR.
    """
    original_path, mp3_path, restored_path, picture_path = paths = [out_dir / name for name in NAMES]
    present = [path for path in paths if path.exists()]
    if present and not overwrite:
        raise AudioFileError(f"{present[0]} exists already; name another folder or pass --overwrite")

    from restorer import Restorer
    from restorer.audio_in import read_audio
    from restorer.audio_out import AudioWriter
    from restorer.metrics import align, lsd
    from restorer.pictures import draw_spectrograms
    from restorer.synthesis import synthesize

    restorer = Restorer(device=device)
    original = synthesize(sample_rate=SAMPLE_RATE, seed=seed)
    mp3 = mp3_of_piece(original, seed)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with whole_file(mp3_path) as partial:
            partial.write_bytes(mp3)
    except OSError as error:
        raise AudioFileError(f"cannot write {mp3_path}: {error.strerror}; name another folder") from error
    with AudioWriter(original_path, len(original), SAMPLE_RATE, overwrite=overwrite) as writer:
        writer.write(original)
    report = restorer.restore_file(mp3_path, restored_path, seed=seed, overwrite=overwrite)

    decoded, _ = read_audio(mp3_path, SAMPLE_RATE)
    restored, _ = read_audio(restored_path, SAMPLE_RATE)
    lag = align(original, decoded, SAMPLE_RATE).lag_samples
    samples = original.shape[1]
    decoded, restored = shift(decoded, lag, samples), shift(restored, lag, samples)
    panels = [("Original", original), (f"MP3 at {BITRATE_KBPS} kbit/s", decoded), ("Restored", restored)]
    draw_spectrograms(picture_path, panels, SAMPLE_RATE)

    speed = f"real-time factor {report.real_time_factor:.3f} on {restorer.device}"
    click.echo(f"{original_path}: {samples / SAMPLE_RATE:.0f} s of music made by code, seed {seed}")
    click.echo(f"{mp3_path}: {BITRATE_KBPS} kbit/s, {len(mp3) / 1000:.0f} kB")
    click.echo(f"{restored_path}: restored in {report.elapsed_seconds:.1f} s, {speed}")
    click.echo(f"{picture_path}: the three side by side")
    click.echo(
        f"log-spectral distance to the original: MP3 {lsd(original, decoded):.2f} dB, "
        f"restored {lsd(original, restored):.2f} dB (lower is closer)"
    )


def mp3_of_piece(original: NDArray[np.float32], seed: int) -> bytes:
    """The piece as MP3: coded now where lameenc is installed, else the bundled file, which is that of seed 0.

    Raises
    ------
    ConfigError : another seed without lameenc.
    """
    try:
        return encode_mp3(original, SAMPLE_RATE, BITRATE_KBPS)
    except ImportError as error:
        if seed != BUNDLED_SEED:
            raise ConfigError(
                f"--seed must be {BUNDLED_SEED} and not {seed} without an MP3 encoder; "
                "for other seeds: pip install 'restorer[mp3]'"
            ) from error
        return files("restorer").joinpath("data/demo_32k.mp3").read_bytes()


def shift(audio: NDArray[np.float32], lag: int, samples: int) -> NDArray[np.float32]:
    """The `samples` samples from `lag` on, with zeros where there is no audio."""
    ahead = max(0, -lag)
    piece = np.pad(audio[:, max(0, lag) :], ((0, 0), (ahead, 0)))[:, :samples]
    return np.pad(piece, ((0, 0), (0, samples - piece.shape[1])))

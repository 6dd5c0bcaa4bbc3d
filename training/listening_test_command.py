"""`restorer listening-test`: builds a listening test as one web page, and analyses the answers."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restorer.errors import ConfigError, RestorerError
from restorer.training.evaluation_data import common_coded_rate, find_music, find_pairs
from restorer.training.listening_analysis import analyse, load_key, load_results, to_markdown, to_record
from restorer.training.listening_page import SAMPLE_RATE, assemble, choose_places, make_versions
from restorer.training.prepare_command import MONO_KBPS, ManyValues, coded_rate_option
from restorer.whole_file import whole_file

if TYPE_CHECKING:
    from restorer import Restorer

LARGE_BYTES = 50_000_000


@click.group("listening-test")
def listening_test() -> None:
    """Ask listeners how good it sounds (paper 3.4.5 and 4.2.2)."""


@listening_test.command("build", cls=ManyValues, context_settings={"show_default": True})
@click.argument("out", metavar="OUT.html", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--music",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of music, coded with LAME here.",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --music: CSV with the columns file, split; default: MUSIC/MANIFEST.csv if there.",
)
@click.option(
    "--pairs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead of --music: a folder made by restorer prepare.",
)
@click.option(
    "--split",
    default="test",
    type=click.Choice(["train", "valid", "test", "all"]),
    help="Which songs to take.",
)
@click.option(
    "--model",
    "model_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="ONNX model or name of a bundled one; twice for one with noise (sto) and one without (det); default: compact.",
)
@click.option(
    "--kbps",
    multiple=True,
    type=int,
    help="Mono bitrates in kbit/s, several in a row.  [default: 16 32 64]",
)
@click.option("--excerpts", default=5, type=click.IntRange(1, 100), help="Excerpts, of different songs if possible.")
@click.option("--seconds", default=8.0, type=click.FloatRange(1.5, 30), help="Length of an excerpt.")
@click.option(
    "--normalise/--no-normalise",
    default=False,
    help="Bring each song's peak to full scale before coding (with --music).",
)
@coded_rate_option(" (with --music)")
@click.option("--seed", default=0, type=click.IntRange(0), help="Decides the excerpts and the restored takes.")
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier test.")
def build(
    out: Path,
    music: Path | None,
    manifest: Path | None,
    pairs: Path | None,
    split: str,
    model_paths: tuple[Path, ...],
    kbps: tuple[int, ...],
    excerpts: int,
    seconds: float,
    normalise: bool,
    coded_rate_hz: int | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Make a listening test in OUT.html, and its key in OUT.key.json.

    The page holds every excerpt as the original, as mono MP3 at each bitrate and as each model restores that (a
    random take of one with noise), unlabelled. Excerpts and MP3s are those of `restorer evaluate`. The page works
    without a server and contacts nobody: give it to listeners in any way, and have them send back the file that
    it saves. Keep the key to yourself; `analyse` needs it.
    """
    kbps = tuple(dict.fromkeys(kbps)) or (16, 32, 64)
    for value in kbps:
        if value not in MONO_KBPS:
            raise ConfigError(f"kbps must be one of {list(MONO_KBPS)} and not {value}")
    if (music is None) == (pairs is None):
        raise ConfigError("give either --music or --pairs, and not both")
    if music is None and (manifest or normalise or coded_rate_hz):
        raise ConfigError(
            "--normalise, --manifest and --coded-rate go with --music: a pairs folder knows its splits and is coded"
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"OUT must end in .html and not '{out.suffix}'")
    key_path = out.with_suffix(".key.json")
    if not out.parent.is_dir():
        raise RestorerError(f"there is no folder '{out.parent}'; make it first")
    for path in (out, key_path):
        if path.exists() and not overwrite:
            raise RestorerError(f"{path} exists already; name another file or pass --overwrite")
    codings = [f"{value}m" for value in kbps]
    if music is not None:
        pieces = find_music(music, manifest, split, codings, coded_rate_hz)
    else:
        pieces = find_pairs(pairs or Path(), split, codings)
    coded_rate_hz = common_coded_rate(pieces)
    models = open_conditions(model_paths or (None,))
    whole = [piece for piece in pieces if set(codings) <= set(piece.codings)]
    places = choose_places(whole, excerpts, seconds, seed, normalise)
    count = len(places) * (1 + (1 + len(models)) * len(kbps))
    versions = []
    with click.progressbar(length=count, label="Versions", file=sys.stderr) as bar:
        for version in make_versions(places, kbps, models, seed, normalise):
            versions.append(version)
            bar.update(1)
    facts = {
        "seed": seed,
        "split": split,
        "seconds": seconds,
        "normalise": normalise,
        "coded_rate_hz": coded_rate_hz,
        "models": {
            condition: {"name": restorer.model_info.name, "version": restorer.model_info.version}
            for condition, restorer in models.items()
        },
    }
    page, key = assemble(versions, places, facts)
    # The key first: a page without its key would waste its listeners' time.
    with whole_file(key_path) as partial:
        partial.write_text(json.dumps(key, indent=1))
    with whole_file(out) as partial:
        partial.write_bytes(page)
    click.echo(
        f"{out}: {count} excerpts of {seconds:g} s to rate ({count * seconds / 60:.1f} min), {len(page) / 1e6:.1f} MB"
    )
    click.echo(f"{key_path}: which is which; keep it from the listeners")
    clipped = sum(version.clipped_samples > 0 for version in versions)
    if clipped:
        click.echo(
            f"Note: {clipped} of {count} versions had samples beyond full scale, now limited; see the key",
            err=True,
        )
    if len(page) > LARGE_BYTES:
        click.echo(
            "Note: the page is large for e-mail and phones; --excerpts and --seconds make it smaller",
            err=True,
        )


def open_conditions(paths: Sequence[Path | None]) -> dict[str, "Restorer"]:
    """The models under test by the paper's names for them: "det" has no noise, "sto" has.

    Raises
    ------
    ModelError, ConfigError
        A model cannot be used, works at another rate than 44.1 kHz, or two are of one kind.
    """
    from restorer import Restorer

    models: dict[str, Restorer] = {}
    for path in paths:
        restorer = Restorer(path)
        if restorer.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"the model must work at {SAMPLE_RATE} Hz and not {restorer.sample_rate}")
        condition = "sto" if restorer.model_info.noise_size else "det"
        if condition in models:
            kind = "with" if condition == "sto" else "without"
            raise ConfigError(f"--model must name one model {kind} noise and not two; '{path}' is the second")
        models[condition] = restorer
    return dict(sorted(models.items()))


@listening_test.command("analyse")
@click.argument("key", metavar="KEY.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument(
    "results",
    metavar="RESULT.json...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (null where a test is not defined).")
def analyse_command(key: Path, results: tuple[Path, ...], as_json: bool) -> None:
    """Print mean opinion scores and t-tests of the files that listeners sent back.

    KEY.json is what build wrote beside the page. The tables are Markdown.
    """
    table = load_key(key)
    analysis = analyse(table, load_results(results, table))
    click.echo(json.dumps(to_record(analysis), indent=2) if as_json else to_markdown(analysis))

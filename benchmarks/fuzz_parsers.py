"""Fuzzes our own parsers with atheris: whatever the bytes, a value or one of our errors in one line.

pip install ".[fuzz]"
python benchmarks/fuzz_parsers.py all --seconds 3600 --corpus DIR    (DIR keeps what was found between runs)

All targets share the seconds equally; a target's name instead of "all" fuzzes that one. A crash is written to crash-*
in the current folder; --again FILE runs it once more.
"""

import contextlib
import copy
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import click
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

with atheris.instrument_imports(include=["restorer.", "tomllib", "json", "csv"]):
    from restorer import checksums
    from restorer.errors import RestorerError
    from restorer.model_checks import check_model
    from restorer.model_file import ModelInfo
    from restorer.model_operators import OPERATORS
    from restorer.model_values import declared_values
    from restorer.mpeg_frames import open_mpeg
    from restorer.pipe import WavStreamReader
    from restorer.tags import copy_tags
    from restorer.training import checkpoint as checkpoints
    from restorer.training.config import Config, from_dict
    from restorer.training.json_lines import load_lines
    from restorer.training.manifest import read_manifest
    from restorer.training.mp3 import Mp3
    from restorer.training.pairs import Song

from toy_model import metadata as toy_metadata  # noqa: E402

METADATA = {**toy_metadata(), "brightness": {"direction": [1.0], "db_per_unit": 1.0}, "noise_size": 1}
CONFIGS = [tomllib.loads(path.read_text()) for path in sorted((ROOT / "training" / "configs").glob("*.toml"))]
SONG: dict[str, Any] = {
    "id": "a",
    "split": "test",
    "source": "a.wav",
    "channels": 2,
    "samples": 9,
    "bandwidth_hz": 2e4,
    "codings": ["16m", "64j"],
}
SCRATCH = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def model(data: bytes) -> None:
    """The look through an ONNX file; what passes must be as harmless to protobuf's own reader."""
    check_model(data, "model.onnx")
    declared = declared_values(data)
    try:
        read = onnx.load_model_from_string(data)
    except Exception:  # then no runtime reads it either
        return
    graph = read.graph
    tensors = [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField("t"))]
    if any(node.op_type not in OPERATORS.get(node.domain, ()) for node in graph.node):
        raise AssertionError("an operator was hidden from the check")
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise AssertionError("weights in another file were hidden from the check")
    if read.functions or any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        raise AssertionError("a graph was hidden from the check")
    weights = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights], [value.name for value in graph.output]
    if names != tuple([value.name for value in values] for values in declared):
        raise AssertionError("protobuf reads other inputs or outputs")


def metadata(data: bytes) -> None:
    """The JSON that a model says about itself: any text, or an intact object with other values."""
    text = json.dumps(_altered(data, METADATA)) if data[:1] < b"\x80" else data[1:].decode("utf-8", "replace")
    ModelInfo.from_json(text, "model.onnx")


def mpeg(data: bytes) -> None:
    """The walk along MPEG frames, and the file that the decoder gets to see."""
    stream = open_mpeg(_written("a.mp3", data)).stream
    if stream is not None:
        with stream:
            stream.seek(0, 2)
            if stream.tell() > 4 * len(data) + 10_000:
                raise AssertionError(f"{len(data)} bytes became {stream.tell()}")
            stream.seek(0)
            while stream.read(4096):
                pass


def mp3_index(data: bytes) -> None:
    """The frame index of a coded song; it is made from our own files and says ValueError."""
    with contextlib.suppress(ValueError):
        Mp3.index(data)


def wav_stream(data: bytes) -> None:
    """A WAV stream through a pipe."""
    import io

    for _ in WavStreamReader(io.BytesIO(data)).blocks(1000):
        pass


def config(data: bytes) -> None:
    """A training config: any TOML, or the shipped ones with other values."""
    if data[:1] < b"\x80":
        from_dict(Config, _altered(data, CONFIGS[len(data) % len(CONFIGS)]), "a.toml")
    else:
        Config.load(_written("a.toml", data[1:]))


def manifest(data: bytes) -> None:
    """A manifest of music."""
    read_manifest(_written("MANIFEST.csv", data))


def song(data: bytes) -> None:
    """The description of one song in a pairs folder: any text, or an intact object with other values."""
    _written("song.json", json.dumps(_altered(data, SONG)).encode() if data[:1] < b"\x80" else data[1:])
    Song.read(SCRATCH)


def sums(data: bytes) -> None:
    """The list of checksums beside the bundled models."""
    _written(checksums.NAME, data)
    checksums.check_data(b"", SCRATCH / "model.onnx")


def lines(data: bytes) -> None:
    """The JSON lines that a training run or an evaluation left."""
    load_lines(_written("lines.jsonl", data))


def checkpoint(data: bytes) -> None:
    """A checkpoint: its header, config and bookkeeping."""
    checkpoints.load(_written("a.safetensors", data))


def tags(data: bytes) -> None:
    """Tags of an MP3 carried over to a WAV file; mutagen reads, so that its errors count as ours."""
    copy_tags(_written("a.mp3", data), _written("a.wav", _wav()))


def _altered(data: bytes, intact: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested objects in which the fuzzer's bytes decide what becomes of some keys."""
    bytes_of = atheris.FuzzedDataProvider(data[1:])
    whole = copy.deepcopy(intact)
    for _ in range(bytes_of.ConsumeIntInRange(0, 4)):
        place = whole
        while True:
            keys = sorted(place, key=str)
            key = keys[bytes_of.ConsumeIntInRange(0, len(keys) - 1)] if keys else "new"
            if not isinstance(place.get(key), dict) or bytes_of.ConsumeBool():
                break
            place = place[key]
        what = bytes_of.ConsumeIntInRange(0, 3)
        if what == 0:
            place.pop(key, None)
        else:
            place[key if what < 3 else bytes_of.ConsumeUnicodeNoSurrogates(8)] = _value(bytes_of, 0)
    return whole


def _value(bytes_of: Any, depth: int) -> Any:
    kind = bytes_of.ConsumeIntInRange(0, 9 if depth < 3 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return bytes_of.ConsumeBool()
    if kind == 2:
        return bytes_of.ConsumeIntInRange(-(1 << 40), 1 << 40)
    if kind == 3:
        return (10**20, -1, 0, 1 << 63, 10**400, 1)[bytes_of.ConsumeIntInRange(0, 5)]
    if kind == 4:
        return bytes_of.ConsumeFloat()
    if kind == 5:
        return bytes_of.ConsumeUnicodeNoSurrogates(12)
    if kind == 6:
        return ("64j", "m", "", "\n", "\x1b[2J", "16m", "paper", "compact")[bytes_of.ConsumeIntInRange(0, 7)]
    items = [_value(bytes_of, depth + 1) for _ in range(bytes_of.ConsumeIntInRange(0, 4))]
    return items if kind < 9 else {bytes_of.ConsumeUnicodeNoSurrogates(5): item for item in items}


def _checkpoint() -> bytes:
    import torch
    from safetensors.torch import save

    said = {"config": CONFIGS[0], "step": 1}
    return bytes(save({"generator.weight": torch.zeros(2)}, {"restorer": json.dumps(said)}))


def _wav() -> bytes:
    from hostile_material import material

    return material(0.05)["wav u8"][1]


def _written(name: str, data: bytes) -> Path:
    path = SCRATCH / name
    path.write_bytes(data)
    return path


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (model, metadata, mpeg, mp3_index, wav_stream, config, manifest, song, sums, lines, checkpoint, tags)
}


def seeds(name: str) -> list[bytes]:
    """Intact inputs to start from."""
    from hostile_material import id3, material
    from toy_model import save_convolution

    audio = material(0.05)
    toy = save_convolution(SCRATCH / "toy.onnx", window=16, hop=4).read_bytes()
    mp3s = [data for key, (_, data) in audio.items() if key.startswith("mp3")]
    configs = [b"\xff" + path.read_bytes() for path in (ROOT / "training" / "configs").glob("*.toml")]
    return {
        "model": [toy],
        "metadata": [b"\xff" + json.dumps(METADATA).encode(), b"\0" * 64],
        "mpeg": mp3s,
        "mp3_index": mp3s,
        "wav_stream": [data for key, (_, data) in audio.items() if key.startswith(("wav", "rf64"))],
        "config": configs,
        "manifest": [b"file,split,artist\na.flac,train,Somebody\n"],
        "song": [b"\xff" + json.dumps(SONG).encode(), b"\0" * 64],
        "sums": [f"{'0' * 64}  model.onnx\n".encode()],
        "lines": [b'{"step": 1, "score": 0.5}\n{"step": 2}\n'],
        "checkpoint": [_checkpoint()],
        "tags": [id3((b"TIT2", b"\3Title", 0), (b"TRCK", b"\0" + b"3/12", 0), version=v) + mp3s[0] for v in (3, 4)],
    }[name]


@click.command()
@click.argument("target", type=click.Choice(["all", *TARGETS]))
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(min=1))
@click.option("--corpus", type=click.Path(file_okay=False, path_type=Path), help="Folder of inputs; grows.")
@click.option("--again", type=click.Path(exists=True, path_type=Path), help="Run one input, such as crash-...")
def main(target: str, seconds: int, corpus: Path | None, again: Path | None) -> None:
    """Feed TARGET mutated bytes for some time."""
    if target == "all":
        sys.exit(fuzz_all(seconds, corpus))
    parse = TARGETS[target]
    csv.field_size_limit(1 << 17)

    def try_bytes(data: bytes) -> None:
        try:
            parse(data)
        except RestorerError as error:
            if len(str(error)) > 2000:
                raise AssertionError("an error of many characters") from error

    if again:
        try_bytes(again.read_bytes())
        return
    corpus = corpus or SCRATCH / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed{number}").write_bytes(data)
    arguments = [
        f"-max_total_time={seconds}",
        "-max_len=65536",
        "-timeout=20",
        "-rss_limit_mb=1000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], try_bytes)
    atheris.Fuzz()


def fuzz_all(seconds: int, corpus: Path | None) -> int:
    """Give each target its share, in a process of its own, and print how many inputs it saw; 1 if any failed."""
    share = max(1, seconds // len(TARGETS))
    inputs, failed = 0, []
    click.echo("| target | inputs | failed |\n|---|---:|---:|")
    for name in TARGETS:
        command = [sys.executable, __file__, name, "--seconds", str(share)]
        if corpus is not None:
            command += ["--corpus", str(corpus / name)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        found = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
        count = int(found[1]) if found else 0
        inputs += count
        click.echo(f"| {name} | {count} | {int(done.returncode != 0)} |")
        if done.returncode:
            failed.append(name)
            click.echo(done.stderr[-3000:], err=True)
    hours = share * len(TARGETS) / 3600
    click.echo(
        f"Fuzzed {len(TARGETS)} parsers for {hours:.2g} hours with {inputs / 1e6:.1f} million inputs, coverage-guided: "
        f"{len(failed)} failures{': ' if failed else ''}{', '.join(failed)}."
    )
    return int(bool(failed))


if __name__ == "__main__":
    main()

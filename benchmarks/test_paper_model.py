"""The paper's model at full size, once: export, streaming equality, speed.

Run: pytest benchmarks/test_paper_model.py -s

Untrained weights: neither speed nor equality depends on them. Needs about 10 GB of memory and 3 GB of disk.
"""

import os
import time
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from restorer import Restorer
from restorer.export.convert import TOLERANCE, export_checkpoint
from restorer.synthesis import synthesize
from restorer.training import checkpoint
from restorer.training.config import Config
from restorer.training.models import build_generator

SECONDS = 4.0


def export_untrained(folder: Path) -> tuple[Path, dict]:  # type: ignore[type-arg]
    """`paper.toml`'s generator as He et al. drew it, louder by a factor, as ONNX."""
    config = Config.load(resources.files("restorer.training") / "configs" / "paper.toml")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        generator = build_generator(config.generator)
        frames = torch.randn(1, 2, generator.context_frames + 4, 1025)
        (output,) = generator(frames, torch.randn(1, config.generator.noise_size))
        generator.deconv4.weight.div_(output[..., :1024].std())  # self-gating halves the level nine times
    source, target = folder / "paper.safetensors", folder / "paper.onnx"
    checkpoint.save(source, checkpoint.prefixed("average", generator.state_dict()), config, {})
    del generator
    info = export_checkpoint(source, target, {})
    source.unlink()
    return target, info


def test_full_size(tmp_path: Path) -> None:
    start = time.monotonic()
    model, info = export_untrained(tmp_path)
    assert info["difference"] <= TOLERANCE
    assert round(info["parameters"] / 1e6, 1) == 322.5
    print(
        f"\n{info['parameters'] / 1e6:.1f} M parameters, {model.stat().st_size / 1e9:.2f} GB, exported and checked "
        f"in {time.monotonic() - start:.0f} s, PyTorch and ONNX differ by {info['difference']:.1e} of full scale"
    )

    restorer = Restorer(model, device="cpu")
    model.unlink()
    audio = synthesize(SECONDS, 44100, 0)
    start = time.monotonic()
    whole = restorer(audio, 44100, seed=1)
    factor = (time.monotonic() - start) / SECONDS
    print(f"stereo, whole: real-time factor {factor:.1f} on {len(os.sched_getaffinity(0))} cores")

    piece = audio[:, : round(1.5 * 44100)]
    reference = restorer(piece, 44100, seed=1)
    stream = restorer.stream(channels=2, seed=1)
    start = time.monotonic()
    blocks = [stream.process(piece[:, i : i + 4096]) for i in range(0, piece.shape[1], 4096)]
    cut = np.concatenate([*blocks, stream.flush()], axis=1)
    factor = (time.monotonic() - start) / 1.5
    print(f"stereo, blocks of 4096 samples, flush included: real-time factor {factor:.1f}")
    difference = np.abs(cut - reference).max()
    print(f"blocks and whole differ by {difference:.1e} of full scale")
    assert np.abs(whole).max() > 1e-2
    assert difference < 1e-5 * max(1.0, float(np.abs(reference).max()))

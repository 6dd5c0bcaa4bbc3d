"""Shared fixtures: synthesised songs as files, a pairs folder made from them, and a small training config."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from restorer.synthesis import synthesize

RATE_HZ = 44100


@pytest.fixture(scope="session")
def music_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short songs, one of them mono, with a manifest that puts one into each split."""
    folder = tmp_path_factory.mktemp("music")
    rows = ["file,split,artist"]
    for seed, (split, channels) in enumerate((("train", 2), ("valid", 1), ("test", 2))):
        soundfile.write(folder / f"song{seed}.flac", synthesize(6.0, RATE_HZ, seed, channels).T, RATE_HZ)
        rows.append(f"song{seed}.flac,{split},Somebody")
    (folder / "MANIFEST.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def pairs_dir(music_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `restorer prepare` makes of `music_dir`."""
    pytest.importorskip("lameenc")
    from click.testing import CliRunner

    from restorer.training.prepare_command import prepare

    folder = tmp_path_factory.mktemp("pairs")
    arguments = [str(music_dir), str(folder), "--kbps", "16", "24", "32", "48", "64", "96", "128"]
    result = CliRunner().invoke(prepare, [*arguments, "--joint-kbps", "48", "64", "128"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def small_config():
    """A narrow generator and critic, and six steps: reconstruction, then adversarial."""
    pytest.importorskip("torch")
    from restorer.training.config import Config, DataConfig, ScheduleConfig
    from restorer.training.critic import CriticConfig
    from restorer.training.generator import GeneratorConfig

    return Config(
        name="small",
        generator=GeneratorConfig(
            noise_size=4,
            lookahead_frames=3,
            front_maps=4,
            band_maps=6,
            aggregation_maps=2,
            stack_maps=6,
            dilations=(1, 2),
        ),
        critic=CriticConfig(front_maps=4, stack_maps=6, dilations=(1, 2)),
        schedule=ScheduleConfig(
            steps=6,
            adversarial_from=3,
            critic_warmup=1,
            batch=2,
            frames=24,
            workers=0,
            warmup_steps=2,
            bf16=False,
        ),
        data=DataConfig(valid_codings=("32m",), valid_every=6, valid_songs=1, checkpoint_minutes=100.0),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)

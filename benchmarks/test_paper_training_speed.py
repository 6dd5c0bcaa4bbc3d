"""How fast paper.toml trains on one GPU, beside the paper's two days on two Titan RTX (3.2).

Run: pytest benchmarks/test_paper_training_speed.py -s

On noise, without decoding: benchmarks/test_loader.py says whether workers keep up. Skipped without CUDA.
"""

from dataclasses import replace
from importlib import resources

import pytest
import torch

from restorer.training.config import Config
from restorer.training.training_speed import largest_batch, measure_training

STEPS = 20
PAPER_DAYS, PAPER_GPUS = 2, 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("bf16", [False, True])
def test_paper_training(bf16: bool) -> None:
    config = Config.load(resources.files("restorer.training") / "configs" / "paper.toml")
    config = replace(config, schedule=replace(config.schedule, bf16=bf16))
    s = config.schedule
    speed = measure_training(config, STEPS)
    torch.cuda.empty_cache()
    print(
        f"\n{torch.cuda.get_device_name()}, {'bf16' if bf16 else 'fp32'}, batch {s.batch}: "
        f"{speed.steps_per_second:.2f} steps per second, {(speed.peak_bytes or 0) / 2**30:.1f} GiB at most; "
        f"{s.steps} steps in {speed.days(s.steps):.2f} days on one, the paper's in {PAPER_DAYS} days on {PAPER_GPUS}"
    )
    most = largest_batch(config)
    print(f"largest batch that fits {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB: {most}")
    assert most >= s.batch

"""The paper's model and training, narrowed until a step takes a fraction of a second."""

from restorer.training.config import Config, DataConfig, ScheduleConfig
from restorer.training.paper_critic import PaperCriticConfig
from restorer.training.paper_generator import PaperGeneratorConfig
from restorer.training.wgan_config import WganConfig

_SIZES = {"front_maps": (2, 3, 3), "bands": 4, "stack_maps": 8, "dilations": (1, 2, 1)}


def toy_paper_config(noise_size: int = 4, steps: int = 2, batch: int = 2) -> Config:
    """Four kinds of layers of each network, and two updates of the critic for one of the generator."""
    return Config(
        name="tiny",
        generator=PaperGeneratorConfig(**_SIZES, noise_size=noise_size),
        critic=PaperCriticConfig(**_SIZES),
        schedule=ScheduleConfig(steps=steps, batch=batch, frames=12, workers=0, bf16=False),
        data=DataConfig(codings=("16m", "64m"), valid_codings=("16m",), valid_every=100, checkpoint_minutes=100.0),
        wgan=WganConfig(critic_steps=2),
    )

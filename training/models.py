"""Which generator and critic a config means: the `kind` of its sections decides."""

from restorer.training.critic import Critic, CriticConfig
from restorer.training.generator import Generator, GeneratorConfig
from restorer.training.paper_critic import PaperCritic, PaperCriticConfig
from restorer.training.paper_generator import PaperGenerator, PaperGeneratorConfig


def build_generator(config: GeneratorConfig | PaperGeneratorConfig) -> Generator | PaperGenerator:
    if isinstance(config, PaperGeneratorConfig):
        return PaperGenerator(config)
    return Generator(config)


def build_critic(config: CriticConfig | PaperCriticConfig) -> Critic | PaperCritic:
    if isinstance(config, PaperCriticConfig):
        return PaperCritic(config)
    return Critic(config)

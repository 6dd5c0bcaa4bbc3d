"""Settings of the paper's own training."""

from dataclasses import dataclass

from restorer.errors import ConfigError


@dataclass(frozen=True)
class WganConfig:
    """Wasserstein GAN with gradient penalty; why each value is what it is stands in configs/paper.toml."""

    critic_steps: int = 1  # updates of the critic for one of the generator
    gradient_penalty: float = 10.0
    drift: float = 1e-3
    beta1: float = 0.0  # of Adam, both networks
    beta2: float = 0.99
    theta: float = 1e4  # of eq. 3
    frequency_exponent: float = 1.3  # p of eq. 3
    rhythm_exponent: float = 1.6
    segment_overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.critic_steps < 1:
            raise ConfigError(f"critic_steps must be at least 1 and not {self.critic_steps}")
        if not 0 <= self.segment_overlap < 1:
            raise ConfigError(f"segment_overlap must be from 0 to below 1 and not {self.segment_overlap}")

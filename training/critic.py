"""The critic: two convolutional groups with two views of the frames, one score per frame (paper 3.1.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from restorer.training.layers import SLOPE, he_initialise

BINS = 1024


@dataclass(frozen=True)
class CriticConfig:
    """Sizes of the critic."""

    kind: str = "compact"
    front_maps: int = 24
    stack_maps: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8)


class CriticGroup(nn.Module):
    """One of the two independent critics: (B, in_maps, T, 1024) -> (B, stack_maps, T, 32) and all activations."""

    def __init__(self, in_maps: int, config: CriticConfig):
        super().__init__()
        c = config
        self.front = nn.Conv2d(in_maps, c.front_maps, (3, 16), stride=(1, 8), padding=(1, 4))
        self.bands = nn.Conv2d(c.front_maps, c.stack_maps, (3, 8), stride=(1, 4), padding=(1, 2))
        self.place = nn.Parameter(torch.zeros(1, c.stack_maps, 1, 32))
        self.stack = nn.ModuleList(
            nn.Conv2d(c.stack_maps, 2 * c.stack_maps, 3, dilation=(d, 1), padding=(d, 1)) for d in c.dilations
        )
        for layer in (self.front, self.bands, *self.stack):
            he_initialise(layer, 0.7)

    def forward(self, x: Tensor) -> list[Tensor]:
        activations = [functional.leaky_relu(self.front(x), SLOPE)]
        x = functional.leaky_relu(self.bands(activations[0]) + self.place, SLOPE)
        activations.append(x)
        for layer in self.stack:  # self-gating (eq. 2) with skip connections
            value, gate = layer(x).chunk(2, dim=1)
            x = x + functional.leaky_relu(value, SLOPE) * torch.sigmoid(gate)
            activations.append(x)
        return activations


class Critic(nn.Module):
    """Scores how much frames look like an original of the given MP3.

    Shape: candidate, coded (B, 2, T, 1025) -> scores (B, T), and the activations of both groups.
    Group 1 sees the signed-square-root STFT, group 2 the square root of the magnitude; they meet only in the
    output layer.
    """

    def __init__(self, config: CriticConfig):
        super().__init__()
        self.config = config
        self.groups = nn.ModuleList([CriticGroup(4, config), CriticGroup(2, config)])
        self.output = nn.Conv2d(2 * config.stack_maps, 1, (1, 32))
        he_initialise(self.output, 0.3)

    def forward(self, candidate: Tensor, coded: Tensor) -> tuple[Tensor, list[Tensor]]:
        views = torch.cat([candidate, coded], dim=1)[..., :BINS] * 0.25
        roots = [(pair.square().square().sum(1, keepdim=True) + 1e-6).pow(0.25) for pair in views.split(2, dim=1)]
        first = self.groups[0](views)
        second = self.groups[1](torch.cat(roots, dim=1))
        scores = self.output(torch.cat([first[-1], second[-1]], dim=1))
        return scores[:, 0, :, 0], first + second


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    coded: Tensor,
    mix: Tensor,
    kind: str,
    penalty: float,
    drift: float,
) -> Tensor:
    """Loss of the critic: eq. 1 with gradient penalty and drift term ("wgan"), or the hinge loss ("hinge").

    real, fake, coded : (B, 2, T, 1025); fake detached.
    mix : (B, 1, 1, 1) in [0, 1], the share of the real in each mixture at which "wgan" penalises the gradient.
    """
    scores, _ = critic(torch.cat([real, fake]), torch.cat([coded, coded]))
    real_score, fake_score = scores.chunk(2)
    if kind == "hinge":
        return functional.relu(1 - real_score).mean() + functional.relu(1 + fake_score).mean()
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between, coded)[0].mean(dim=1).sum(), between, create_graph=True)
    excess = gradient.flatten(1).norm(dim=1) * real.shape[2] ** 0.5 - 1
    return fake_score.mean() - real_score.mean() + penalty * excess.square().mean() + drift * real_score.square().mean()

"""The critic of the paper, Table 1 to the letter, and its loss: eq. 1, gradient penalty and drift term.

How the paper is read where it leaves a choice:

* "Two convolutional groups throughout ... amounts to two independent critics": each group has the maps that
  Table 1 prints. They meet in the output layer, Conv16, which adds one score per frame from each group's 256
  maps: the same as one convolution of all 512.
* Table 1's two input maps are the two parts of one signal, as the generator gets them. The critic sees two
  signals, the candidate and the MP3, so Conv1 of group 1 has 4 input maps (both parts of both: without the
  MP3's phase it could not see whether the phase was kept) and of group 2 has 2 (the root of the magnitude of
  both).
* Skip connections in Conv6-14 need as many maps before as behind: Conv7-14 have 128 before the convolution
  and after self-gating, Conv6 has 256 before and after the convolution. So they go around these, with no
  weights.
* The critic pads time with zeros, 212 frames throughout, as the table prints.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restorer.training.paper_generator import BINS, PaperConv, Trunk, TrunkConfig, he_initialise

ROOT_FLOOR = 1e-6  # of the power below a fourth root: bounds the second derivative that the penalty needs


@dataclass(frozen=True)
class PaperCriticConfig(TrunkConfig):
    """Sizes of each group of the paper's critic."""


class PaperCriticGroup(nn.Module):
    """One of the two independent critics: (B, in_maps, T, 1024) -> scores (B, 1, T, 1), all activations."""

    def __init__(self, in_maps: int, config: PaperCriticConfig):
        super().__init__()
        self.trunk = Trunk(in_maps, config)
        self.conv15 = PaperConv(config.gated_maps, config.stack_maps, 1)
        self.conv16 = nn.Conv2d(config.stack_maps, 1, (1, config.bands))
        he_initialise(self.conv16, config.stack_maps * config.bands)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        activations = []
        for layer in self.trunk.front:
            x, _ = layer(x, pad=layer.dilation)
            activations.append(x)
        x = self.trunk.aggregate(x)
        x, _ = self.trunk.conv5(x, pad=self.trunk.conv5.dilation)
        activations.append(x)
        for layer in self.trunk.stack:
            x, _ = layer(x, pad=layer.dilation, skip=True)
            activations.append(x)
        x, _ = self.conv15(x, pad=1)
        activations.append(x)
        return self.conv16(x), activations


class PaperCritic(nn.Module):
    """Scores how much frames look like an original of the given MP3.

    Shape: candidate, coded (B, 2, T, 1025) -> scores (B, T), and the activations of both groups.
    Group 1 sees the signed-square-root STFT, group 2 the square root of the magnitude.
    """

    def __init__(self, config: PaperCriticConfig):
        super().__init__()
        self.config = config
        self.groups = nn.ModuleList([PaperCriticGroup(4, config), PaperCriticGroup(2, config)])

    def forward(self, candidate: Tensor, coded: Tensor) -> tuple[Tensor, list[Tensor]]:
        parts = torch.cat([candidate, coded], dim=1)[..., :BINS]
        powers = parts.square().square().unflatten(1, (2, 2)).sum(dim=2)  # (B, candidate and MP3, T, 1024)
        scores, activations = zip(self.groups[0](parts), self.groups[1]((powers + ROOT_FLOOR).pow(0.25)), strict=True)
        return (scores[0] + scores[1])[:, 0, :, 0], activations[0] + activations[1]


def wgan_loss(
    critic: nn.Module, real: Tensor, fake: Tensor, coded: Tensor, mix: Tensor, penalty: float, drift: float
) -> tuple[Tensor, Tensor]:
    """Loss of the critic, and the Wasserstein distance that it estimates (eq. 1).

    An excerpt's score is the mean over its frames (3.1.1); the penalty holds the norm of its gradient
    by the candidate at 1, on random mixtures of real and fake (Gulrajani et al. 2017); the drift term is the
    mean square of the scores of originals.

    Parameters
    ----------
    real, fake, coded : (B, 2, T, 1025), fake detached.
    mix : (B, 1, 1, 1) in [0, 1], the share of the real in each mixture.
    """
    scores, _ = critic(torch.cat([real, fake]), torch.cat([coded, coded]))
    real_score, fake_score = scores.float().chunk(2)
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    score = critic(between, coded)[0].float().mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(score, between, create_graph=True)
    distance = real_score.mean() - fake_score.mean()
    excess = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return -distance + penalty * excess + drift * real_score.square().mean(), distance.detach()

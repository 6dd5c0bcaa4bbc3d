"""The generator is one function of signal and noise, whole or in pieces."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restorer.errors import ConfigError
from restorer.training.generator import Generator, GeneratorConfig
from restorer.training.signal import analyse, restore, synthesise


@pytest.fixture(scope="module")
def generator(small_config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shaken(Generator(small_config.generator))


def shaken(generator):
    """Random weights in the last layer too, which starts near zero."""
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return generator.eval()


def stream(generator, frames, z, steps):
    states = [torch.zeros(len(frames), *shape) for shape in generator.state_shapes]
    pieces, start = [], 0
    for step in steps:
        piece, *states = generator(frames[:, :, start : start + step], z, *states)
        pieces.append(piece)
        start += step
    return torch.cat(pieces, dim=2)


@pytest.mark.parametrize(
    ("fine_maps", "levels", "restraint", "latitude"),
    [(0, True, 0, False), (4, True, 0, True), (4, False, 9, True), (0, True, 50, False)],
)
@pytest.mark.parametrize("lookahead", [0, 1, 5])
@torch.no_grad()
def test_pieces_equal_the_whole(lookahead, fine_maps, levels, restraint, latitude):
    sizes = {"noise_size": 3, "front_maps": 4, "stack_maps": 4, "dilations": (1, 3)}
    sizes |= {"lookahead_frames": lookahead, "fine_maps": fine_maps, "fine_levels": levels}
    config = GeneratorConfig(**sizes, restraint_frames=restraint, restrained_noise=latitude)
    generator = shaken(Generator(config))
    draw = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 2, 30, 1025, generator=draw) * 4
    z = torch.randn(2, 3, generator=draw)
    (whole,) = generator(frames, z)
    assert whole.shape[2] == 30 - generator.context_frames
    for steps in ([30], [1] * 30, [7, 1, 12, 3, 7]):
        pieces = stream(generator, frames, z, steps)
        assert pieces.shape == frames.shape
        torch.testing.assert_close(pieces[:, :, generator.context_frames :], whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_fine_stage_starts_as_no_stage():
    sizes = {"noise_size": 3, "front_maps": 4, "stack_maps": 4, "dilations": (1, 3)}
    plain, fine = Generator(GeneratorConfig(**sizes)), Generator(GeneratorConfig(**sizes, fine_maps=4))
    fine.load_state_dict(plain.state_dict(), strict=False)
    frames, z = torch.randn(1, 2, 30, 1025), torch.randn(1, 3)
    torch.testing.assert_close(fine(frames, z)[0], plain(frames, z)[0])


@torch.no_grad()
def test_output_is_aligned_with_the_delayed_input(generator):
    """With an output layer of zeros the generator is the delay line alone."""
    quiet = Generator(generator.config)
    for parameter in (quiet.out.conv.weight, quiet.out.conv.bias, quiet.out_bias):
        parameter.zero_()
    frames = torch.randn(1, 2, 20, 1025)
    (output,) = quiet(frames, torch.zeros(1, 4))
    end = 20 - quiet.config.lookahead_frames
    torch.testing.assert_close(output, frames[:, :, end - output.shape[2] : end])


@torch.no_grad()
def test_context_is_exactly_what_matters(generator):
    frames = torch.randn(1, 2, generator.context_frames + 2, 1025)
    changed = frames.clone()
    changed[:, :, 0] += 1
    z = torch.zeros(1, 4)
    (first,), (second,) = generator(frames, z), generator(changed, z)
    assert not torch.equal(first[:, :, 0], second[:, :, 0])
    torch.testing.assert_close(first[:, :, 1:], second[:, :, 1:], atol=0, rtol=0)


@torch.no_grad()
def test_noise_and_nothing_else_changes_the_output(generator):
    frames = torch.randn(1, 2, 20, 1025).expand(2, -1, -1, -1)
    z = torch.randn(2, 4)
    (output,) = generator(frames, z)
    assert (output[0] - output[1]).abs().max() > 1e-3
    (same,) = generator(frames, z[:1].expand(2, -1))
    torch.testing.assert_close(same[0], same[1])


def test_analysis_and_synthesis_are_inverse(rng):
    audio = torch.from_numpy(rng.standard_normal((2, 10 * 512)).astype(np.float32))
    back = synthesise(analyse(audio))
    torch.testing.assert_close(back, audio[:, 1536 : 1536 + back.shape[1]], atol=1e-5, rtol=0)


def test_frames_are_those_of_the_runtime(rng):
    from restorer.transform import Analysis

    audio = rng.standard_normal((2, 8 * 512)).astype(np.float32)
    runtime = Analysis(2, 2048, 512)(audio)[:, :, 3:]  # the runtime starts in the silence before
    torch.testing.assert_close(analyse(torch.from_numpy(audio)), torch.from_numpy(runtime), atol=2e-3, rtol=0)


def test_restore_keeps_length(generator, rng):
    for samples in (1, 511, 4096, 10_001):
        audio = rng.standard_normal((2, samples)).astype(np.float32)
        assert restore(generator, audio, torch.zeros(4)).shape == audio.shape


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="multiples of 4"):  # else a copy's phase breaks from frame to frame
        Generator(GeneratorConfig(copy_up_bins=(258,)))
    with pytest.raises(ConfigError, match="at most what the dilations span, 6"):
        Generator(GeneratorConfig(dilations=(1, 2), lookahead_frames=7))

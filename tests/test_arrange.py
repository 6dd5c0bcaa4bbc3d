"""What is exported computes what was trained, though its weights are arranged in another way."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from test_generator import shaken, stream

from restorer.export.arrange import ArrangedGenerator, PairedFineStage, Surroundings, balance, level
from restorer.export.arrange_restraint import ArrangedRestraint
from restorer.training.generator import Generator, GeneratorConfig, Restraint, surroundings
from restorer.training.layers import subpixel


def make(fine_maps: int, **others: int) -> Generator:
    sizes = {"noise_size": 3, "lookahead_frames": 2, "front_maps": 4, "stack_maps": 4, "dilations": (1, 3)}
    return shaken(Generator(GeneratorConfig(**{**sizes, **others}, fine_maps=fine_maps)))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    ("fine_maps", "others"),
    [
        (0, {}),
        (5, {"restrained_noise": True}),
        (5, {"lookahead_frames": 0, "aggregation_rank": 6}),
        (5, {"fine_levels": False}),
        (0, {"restraint_frames": 5, "restrained_noise": True}),
        (5, {"aggregation_rank": 6, "restraint_frames": 40}),
        (5, {"aggregation_rank": 6, "restraint_frames": 40, "restrained_noise": True, "fine_levels": False}),
    ],
)
@torch.no_grad()
def test_arranged_generator_is_the_same_function(fine_maps, others, small):
    generator = make(fine_maps, **others)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    arranged = ArrangedGenerator(generator, small).eval()
    draw = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 2, 30, 1025, generator=draw) * 4
    frames[:, :, 10:14] *= 30
    frames[:, :, 20:] *= 1e-6
    z = torch.randn(2, 3, generator=draw)
    (whole,) = generator(frames, z)
    sizes = whole.abs().amax(dim=(1, 3), keepdim=True)
    for steps in ([30], [7, 1, 12, 3, 7]):
        pieces = stream(arranged, frames, z, steps)[:, :, generator.context_frames :]
        assert ((pieces - whole).abs() < 1e-4 * sizes).all()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@torch.no_grad()
def test_balance_brings_sums_closer_and_keeps_the_function():
    generator = make(0, aggregation_rank=6)
    generator.aggregate.narrow.weight[2] *= 100
    frames = torch.randn(1, 2, 30, 1025, generator=torch.Generator().manual_seed(2)) * 4
    z = torch.ones(1, 3)

    def sizes() -> torch.Tensor:
        sums = []
        hook = generator.aggregate.narrow.register_forward_hook(lambda *given: sums.append(given[2]))
        generator(frames, z)
        hook.remove()
        return sums[0].square().mean(dim=(0, 1)).sqrt()

    (expected,), before = generator(frames, z), sizes()
    balance(generator, [frames.numpy()])
    assert ((generator(frames, z)[0] - expected).abs() < 1e-4 * expected.abs().amax()).all()
    assert sizes().amin() / sizes().amax() > 2 * before.amin() / before.amax()
    assert not (generator.aggregate.narrow._forward_hooks or generator.spread.narrow._forward_hooks)


@pytest.mark.parametrize("fine_maps", [0, 5])
@torch.no_grad()
def test_levelled_maps_are_closer_in_size_and_keep_the_function(fine_maps):
    generator = make(fine_maps)
    generator.front.conv.weight[1] *= 0.01
    generator.front.conv.bias[1] *= 0.01
    generator.front_bias[:, 1] *= 0.01
    for parameter in (generator.rise.conv.weight, generator.rise.conv.bias):
        parameter[4:8] *= 0.01
    frames = torch.randn(1, 2, 30, 1025, generator=torch.Generator().manual_seed(2)) * 4
    z = torch.ones(1, 3)

    def spread() -> float:
        heard = []
        hook = generator.refine.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
        generator(frames, z)
        hook.remove()
        peaks = heard[0].abs().amax(dim=(0, 2, 3))
        return float(peaks.amax() / peaks.amin())

    (expected,), before = generator(frames, z), spread()
    level(generator, [frames.numpy()])
    assert ((generator(frames, z)[0] - expected).abs() < 1e-4 * expected.abs().amax()).all()
    assert before > 20 and spread() < 0.6 * before
    assert not (generator.refine._forward_pre_hooks or generator.out._forward_pre_hooks)


@pytest.mark.parametrize("levels", [True, False])
@torch.no_grad()
def test_pairs_of_bins_are_the_fine_stage(levels):
    stage = make(5, fine_levels=levels).fine
    draw = torch.Generator().manual_seed(3)
    power, around = (torch.rand(2, 1, 8, 1024, generator=draw).exp() for _ in range(2))
    bands = torch.randn(2, 4, 6, 128, generator=draw)
    expected, _ = stage(power, around, bands)
    hints = subpixel(stage.hint(bands)[0], 8)
    heard = torch.cat([around, power], dim=1) if levels else power / around
    got = PairedFineStage(stage)(heard.log(), hints)
    assert got.shape == expected.shape == (2, 6, 6, 1024)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("latitude", [False, True])
@pytest.mark.parametrize(("frames", "maps", "arranged_maps"), [(1, 16, 32), (40, 16, 32), (40, 63, 64)])
@torch.no_grad()
def test_arranged_restraint_is_the_same_function(frames, maps, arranged_maps, latitude):
    restraint = shaken(Restraint(frames, maps, latitude))
    power = torch.rand(2, 1, 30, 1024, generator=torch.Generator().manual_seed(5)).log().neg() * 20
    power[:, :, 12:18] = 0
    arranged = ArrangedRestraint(restraint)
    assert arranged.state_shape == (arranged_maps, frames - 1, 1)
    expected, _ = restraint(power)
    memory, pieces = torch.zeros(2, *arranged.state_shape), []
    for piece in power.split([1, 7, 22], dim=2):
        share, noise, memory = arranged(piece, memory)
        assert (noise is not None) == latitude
        pieces.append(torch.cat([share, noise], dim=1) if latitude else share)
    assert expected.std() > 1e-3
    torch.testing.assert_close(torch.cat(pieces, dim=2), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 9, 33])
def test_surroundings_are_means(width):
    power = torch.rand(2, 1, 3, 1024, generator=torch.Generator().manual_seed(4)).exp()
    torch.testing.assert_close(Surroundings(width)(power), surroundings(power, width), atol=0, rtol=1e-5)

"""The paper's model is Table 1, its parts are the paper's equations, and it streams like any other."""

import re
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restorer import Restorer
from restorer.noise import draw_noise
from restorer.synthesis import synthesize
from restorer.training import checkpoint
from restorer.training.config import Config
from restorer.training.models import build_critic, build_generator
from restorer.training.paper_critic import PaperCriticConfig
from restorer.training.paper_generator import PaperConv, PaperGeneratorConfig
from restorer.training.signal import restore
from restorer.training.wgan import build_trainer

# As printed: (.) only the generator, [.] only the critic; maps x bins x frames. A deconvolution is printed with the
# maps of the convolution that it inverts.
TABLE_1 = """
Input          | -          | -    | -      | -  | -          | -     | 2x1024x(336)[212]
Conv1          | 2          | 18   | 3x3    | 1  | 1, 1       | PReLU | 18x1024x(336)[212]
Conv2          | 18         | 38   | 3x3    | 2  | 2, 2       | PReLU | 38x1024x(336)[212]
Conv3          | 38         | 38   | 3x3    | 4  | 4, 4       | PReLU | 38x1024x(336)[212]
Conv4          | 38         | 4096 | 1024x1 | 1  | 0, 0       | PReLU | 4096x1x(336)[212]
Reshape1       | -          | -    | -      | -  | -          | -     | 128x32x(336)[212]
ReMap          | 128        | 256  | 1x1    | 1  | 0, 0       | PReLU | 256x32x(336)[212]
Conv5          | 256        | 256  | 3x3    | 1  | 1, (0)[1]  | PReLU | 256x32x(334)[212]
(Noise Concat) | -          | -    | -      | -  | -          | -     | 320x32x334
Conv6          | (320)[256] | 256  | 3x3    | 2  | 2, (0)[2]  | PReLU | 256x32x(330)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(330)[212]
Conv7          | 128        | 256  | 3x3    | 4  | 4, (0)[4]  | PReLU | 256x32x(322)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(322)[212]
Conv8          | 128        | 256  | 3x3    | 8  | 8, (0)[8]  | PReLU | 256x32x(306)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(306)[212]
Conv9          | 128        | 256  | 3x3    | 16 | 16, (0)[16]| PReLU | 256x32x(274)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(274)[212]
Conv10         | 128        | 256  | 3x3    | 1  | 1, (0)[1]  | PReLU | 256x32x(272)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(272)[212]
Conv11         | 128        | 256  | 3x3    | 2  | 2, (0)[2]  | PReLU | 256x32x(268)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(268)[212]
Conv12         | 128        | 256  | 3x3    | 4  | 4, (0)[4]  | PReLU | 256x32x(260)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(260)[212]
Conv13         | 128        | 256  | 3x3    | 8  | 8, (0)[8]  | PReLU | 256x32x(244)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x(244)[212]
Conv14         | 128        | 256  | 3x3    | 16 | 16, (0)[16]| PReLU | 256x32x(212)[212]
SelfGating     | -          | -    | -      | -  | -          | -     | 128x32x212
(Reshape2)     | -          | -    | -      | -  | -          | -     | 4096x1x212
(DeConv4)      | 38         | 4096 | 1024x1 | 1  | 0, 0       | PReLU | 38x1024x212
(DeConv3)      | 38         | 38   | 3x3    | 4  | 4, 4       | PReLU | 38x1024x212
(DeConv2)      | 18         | 38   | 3x3    | 2  | 2, 2       | PReLU | 18x1024x212
(DeConv1)      | 2          | 18   | 3x3    | 1  | 1, 1       | PReLU | 2x1024x212
(Output)       | -          | -    | -      | -  | -          | -     | 2x1024x212
[Conv15]       | 128        | 256  | 3x3    | 1  | 1, 1       | PReLU | 256x32x212
[Conv16]       | 256        | 1    | 32x1   | 1  | 0, 0       | -     | 1x1x212
"""
PAPER = resources.files("restorer.training") / "configs" / "paper.toml"
NARROW = {"front_maps": (2, 3, 3), "bands": 4, "stack_maps": 8}
SHORT = {**NARROW, "dilations": (1, 2, 1)}


def table(network, stochastic=True):
    """Table 1 as one network's rows; the deterministic generator has the critic's Conv6 and no noise."""
    other = r"\[[^]]*\]" if network == "generator" else r"\([^)]*\)"
    lines = TABLE_1.strip().splitlines()
    if not stochastic:
        lines = [line.replace("(320)[256]", "256") for line in lines if "Noise" not in line]
    rows = [[cell.strip() for cell in re.sub(other, "", line).split("|")] for line in lines]
    return [[re.sub(r"[()\[\]]", "", cell) for cell in row] for row in rows if row[0]]


def size(x):
    return f"{x.shape[1]}x{x.shape[3]}x{x.shape[2]}"


def walk(model, trunk, extra, run):
    """Run on tensors without data and note for every layer, in order, what Table 1 prints."""
    names = {layer: f"Conv{i + 1}" for i, layer in enumerate(trunk.front)}
    names |= {trunk.aggregate.conv: "Conv4", trunk.aggregate.remap: "ReMap", trunk.conv5: "Conv5"}
    names |= {layer: f"Conv{i + 6}" for i, layer in enumerate(trunk.stack)} | extra
    rows, given = [], {}

    def before(module, args):
        given[module] = args[0]
        name = names.get(module)
        if name in ("ReMap", "DeConv4"):
            rows.append([f"Reshape{1 if name == 'ReMap' else 2}", *"------", size(args[0])])
        if name == "Conv6" and args[0].shape[1] == 320:
            rows.append(["Noise Concat", *"------", size(args[0])])

    def after(module, args, output):
        if isinstance(module, torch.nn.PReLU):
            rows[-1][6] = "PReLU"
        elif isinstance(module, PaperConv):
            rows[-1][5] = padding(module.conv, given[module], rows[-1][7])
            if module.gated:
                rows.append(["SelfGating", *"------", size(output[0])])
        elif isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            maps = [module.in_channels, module.out_channels]
            if module.transposed:
                maps.reverse()
            owner = next(m for m in names if m is module or getattr(m, "conv", None) is module)
            kernel = "x".join(str(k) for k in reversed(module.kernel_size))
            assert module.dilation[0] == module.dilation[1]
            row = [names[owner], *map(str, maps), kernel, str(module.dilation[0]), "", "-", size(output)]
            row[5] = padding(module, args[0], row[7])
            rows.append(row)

    def padding(conv, x, output):
        """Measured, not read: what turns this input size into that output size, in frequency and time."""
        _, bins, frames = map(int, output.split("x"))
        pads = []
        for axis, sizes in ((1, (x.shape[3], bins)), (0, (x.shape[2], frames))):
            grown = sizes[1] - sizes[0] if not conv.transposed else sizes[0] - sizes[1]
            pads.append((grown + conv.dilation[axis] * (conv.kernel_size[axis] - 1)) // 2)
        return f"{pads[0]}, {pads[1]}"

    for module in model.modules():
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    run()
    return rows


@pytest.mark.parametrize("stochastic", [True, False])
def test_generator_is_table_1(stochastic):
    config = Config.load(PAPER).generator
    config = config if stochastic else replace(config, noise_size=0)
    with torch.device("meta"):
        model = build_generator(config)
        frames, z = torch.zeros(12, 2, 336, 1025), torch.zeros(12, config.noise_size)
    extra = {model.deconv4: "DeConv4"} | {layer: f"DeConv{3 - i}" for i, layer in enumerate(model.back)}
    outputs = []
    rows = walk(model, model.trunk, extra, lambda: outputs.append(model.excerpt(frames, z)))
    expected = table("generator", stochastic)
    assert expected[0][7] == size(frames[..., :1024])
    assert rows == expected[1:-1]
    assert expected[-1][7] == size(outputs[0][..., :1024])
    assert model.excerpt_margin == 62 and model.context_frames == 152 and config.lookahead_frames == 76

    count = sum(parameter.numel() for parameter in model.parameters())
    slopes = sum(isinstance(module, torch.nn.PReLU) for module in model.modules())
    assert count == weights(expected) + slopes
    print(f"\ngenerator, {'stochastic' if stochastic else 'deterministic'}: {count} parameters")
    assert round(count / 1e6, 1) == (322.5 if stochastic else 322.4)


def weights(rows):
    """Weights and biases that the rows of Table 1 mean."""
    total = 0
    for name, inputs, outputs, kernel, *_ in rows:
        if kernel != "-":
            height, width = map(int, kernel.split("x"))
            total += int(inputs) * int(outputs) * height * width
            total += int(inputs if name.startswith("DeConv") else outputs)
    return total


@pytest.mark.parametrize(("group", "input_maps"), [(0, 4), (1, 2)])
def test_critic_is_table_1(group, input_maps):
    """Each group; Table 1's two input maps are one signal, and group 1 sees both parts of candidate and MP3."""
    with torch.device("meta"):
        critic = build_critic(Config.load(PAPER).critic)
        frames = torch.zeros(12, 2, 212, 1025)
    part, results = critic.groups[group], []
    extra = {part.conv15: "Conv15", part.conv16: "Conv16"}
    rows = walk(part, part.trunk, extra, lambda: results.append(critic(frames, frames)[0]))
    expected = table("critic")
    expected[1][1] = str(input_maps)
    assert rows == expected[1:]
    assert results[0].shape == (12, 212)
    slopes = sum(isinstance(module, torch.nn.PReLU) for module in part.modules())
    assert sum(p.numel() for p in part.parameters()) == weights(expected) + slopes


def seeded(build, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(config)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def he_std(inputs):
    return (2 / ((1 + 0.25**2) * inputs)) ** 0.5


def test_weights_are_hes():
    model = seeded(build_generator, PaperGeneratorConfig(**{**NARROW, "front_maps": (2, 8, 8)}))
    trunk = model.trunk
    expected = {trunk.front[1].conv: 2 * 9, trunk.aggregate.conv: 8 * 1024, trunk.stack[0].conv: 72 * 9}
    expected |= {model.deconv4: 16, model.back[0].conv: 8 * 9}  # a deconvolution sums its input maps
    for layer, inputs in expected.items():
        assert float(layer.weight.detach().std()) == pytest.approx(he_std(inputs), rel=0.2)
        assert not layer.bias.any()


def test_self_gating_is_equation_2():
    layer = seeded(lambda _: PaperConv(3, 8, 2, gated=True), None)
    torch.nn.init.normal_(layer.conv.bias)
    x = random(1, 3, 9, 6)
    (w, v), (a, b) = layer.conv.weight.chunk(2), layer.conv.bias.chunk(2)
    convolve = torch.nn.functional.conv2d
    first = convolve(x, w, a, padding=(0, 2), dilation=2)
    second = convolve(x, v, b, padding=(0, 2), dilation=2)
    expected = torch.where(first > 0, first, 0.25 * first) / (1 + torch.exp(-second))
    torch.testing.assert_close(layer(x)[0], expected)


def test_noise_is_repeated_over_frequency_and_time_before_conv6():
    model = seeded(build_generator, PaperGeneratorConfig(**SHORT))
    seen = []
    model.trunk.stack[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    z = random(2, 64)
    model.excerpt(random(2, 2, 12, 1025), z)
    assert seen[0].shape == (2, 8 + 64, 10, 4)
    torch.testing.assert_close(seen[0][:, 8:], z[:, :, None, None].expand(-1, -1, 10, 4))


def test_padding_of_excerpts_touches_only_their_edges():
    """Inside, Table 1's padded excerpt and the unpadded form of whole songs are the same numbers."""
    config = PaperGeneratorConfig(**SHORT)
    model = seeded(build_generator, config)
    frames, z = random(1, 2, 60, 1025), random(1, 64)
    with torch.no_grad():
        padded, (valid,) = model.excerpt(frames, z), model(frames, z)
        model.config = replace(config, pad_front=False)
        torch.testing.assert_close(model.excerpt(frames, z), valid)
    assert padded.shape[2] == 60 - 8 and valid.shape[2] == 60 - 36
    torch.testing.assert_close(padded[:, :, 14:-14], valid, rtol=1e-4, atol=1e-5)
    assert (padded[:, :, :7] - padded[:, :, 14:21]).abs().max() > 1e-3


@pytest.fixture(scope="module")
def critic():
    return seeded(build_critic, PaperCriticConfig(**NARROW))


@pytest.mark.parametrize("group", [0, 1])
def test_critic_groups_meet_only_in_the_last_layer(critic, group):
    candidate, coded = random(1, 2, 20, 1025), random(1, 2, 20, 1025, seed=1)
    critic.zero_grad(set_to_none=True)
    _, activations = critic(candidate, coded)
    half = len(activations) // 2
    sum(x.sum() for x in activations[group * half : (group + 1) * half]).backward()
    assert all(p.grad is None for p in critic.groups[1 - group].parameters())
    own = [name for name, p in critic.groups[group].named_parameters() if p.grad is None]
    assert own == ["conv16.weight", "conv16.bias"]
    critic(candidate, coded)[0].sum().backward()
    assert all(p.grad is not None for p in critic.parameters())


def test_critic_views_and_condition(critic):
    """Group 1 hears phase, group 2 only magnitude; both hear the MP3."""
    candidate, coded = random(1, 2, 20, 1025), random(1, 2, 20, 1025, seed=1)
    turned = torch.stack([-candidate[:, 1], candidate[:, 0]], dim=1)

    def groups(x, y):
        scores = []
        hooks = [g.register_forward_hook(lambda _, __, out: scores.append(out[0])) for g in critic.groups]
        with torch.no_grad():
            total, _ = critic(x, y)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(total, (scores[0] + scores[1])[:, 0, :, 0])
        assert total.shape == (1, 20)
        return scores

    scores, scores_turned = groups(candidate, coded), groups(turned, coded)
    assert not torch.allclose(scores[0], scores_turned[0])
    torch.testing.assert_close(scores[1], scores_turned[1])
    for one, other in zip(scores, groups(candidate, 2 * coded), strict=True):
        assert not torch.allclose(one, other)


def test_critic_skips_conv6_to_14(critic):
    group = seeded(build_critic, PaperCriticConfig(**NARROW)).groups[1]
    for layer in group.trunk.stack:
        torch.nn.init.zeros_(layer.conv.weight)
    with torch.no_grad():
        _, activations = group(random(1, 2, 12, 1024))
    conv5, stack = activations[3], activations[4:-1]
    assert len(stack) == 9
    value, gate = conv5.chunk(2, dim=1)
    expected = torch.where(value > 0, value, 0.25 * value) * torch.sigmoid(gate)
    for activation in stack:  # what is left when every convolution of Conv6-14 is silent
        torch.testing.assert_close(activation, expected)


@pytest.mark.parametrize("noise_size", [64, 0])
def test_states_carry_all_context(noise_size):
    """Any cut into calls gives what one call without states gives, once the states have been filled."""
    config = PaperGeneratorConfig(**SHORT, noise_size=noise_size)
    model = seeded(build_generator, config)
    frames, z = random(2, 2, model.context_frames + 20, 1025), random(2, noise_size) if noise_size else None
    states, pieces = [torch.zeros(2, *shape) for shape in model.state_shapes], []
    with torch.no_grad():
        (whole,) = model(frames, z)
        for piece in frames.split([1, 30, 2, 7, frames.shape[2] - 40], dim=2):
            restored, *states = model(piece, z, *states)
            assert restored.shape == piece.shape
            assert [tuple(state.shape[1:]) for state in states] == model.state_shapes
            pieces.append(restored)
    got = torch.cat(pieces, dim=2)[:, :, model.context_frames :]
    torch.testing.assert_close(got, whole, rtol=1e-4, atol=1e-5)
    delay = config.lookahead_frames
    torch.testing.assert_close(whole[..., 1024], frames[:, :, delay : delay + 20, 1024])


@pytest.fixture(scope="module", params=[64, 0], ids=["stochastic", "deterministic"])
def exported(request, tmp_path_factory):
    """A narrowed copy of paper.toml with all of its dilations, as a checkpoint and as ONNX."""
    pytest.importorskip("onnx")
    from restorer.export.convert import export_checkpoint

    folder = tmp_path_factory.mktemp("paper")
    config = Config.load(PAPER)
    generator, critic = (replace(part, **NARROW) for part in (config.generator, config.critic))
    generator = replace(generator, noise_size=request.param)
    trainer = seeded(build_trainer, replace(config, generator=generator, critic=critic))
    model = trainer.average
    with torch.no_grad():  # self-gating halves the level nine times: make the output as loud as music
        z = random(1, request.param) if request.param else None
        model.deconv4.weight.div_(model(random(1, 2, 160, 1025), z)[0][..., :1024].std())
    trainer.save_generator(folder / "paper.safetensors", {})
    info = export_checkpoint(folder / "paper.safetensors", folder / "paper.onnx", {})
    assert info["difference"] < 1e-4 and info["latency_samples"] == 2047 + 76 * 512
    assert info["trained_kbps"] == [16, 32, 64]
    return folder


def test_streams_are_equal_to_the_whole_and_to_pytorch(exported):
    audio = synthesize(1.2, 44100, 1)
    generator, config, _ = checkpoint.load_generator(exported / "paper.safetensors")
    noise_size = config.generator.noise_size
    assert config.generator == replace(Config.load(PAPER).generator, **NARROW, noise_size=noise_size)
    z = torch.from_numpy(draw_noise(7, noise_size)) if noise_size else None
    expected = restore(generator, audio, z)
    restorer = Restorer(exported / "paper.onnx", device="cpu", threads=1)
    whole = restorer(audio, 44100, seed=7)
    assert whole.shape == audio.shape and np.abs(whole).max() > 1e-2
    assert np.abs(whole - expected).max() < 1e-4
    for block in (509, 4096):
        stream = restorer.stream(channels=2, seed=7)
        pieces = [stream.process(audio[:, i : i + block]) for i in range(0, audio.shape[1], block)]
        assert np.abs(np.concatenate([*pieces, stream.flush()], axis=1) - whole).max() < 1e-5
    other_take = np.abs(restorer(audio, 44100, seed=8) - whole).max()
    assert other_take > 1e-4 if noise_size else other_take == 0

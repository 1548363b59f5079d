import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from data_prep.convert_vision_tower import convert, fold_state_dict
from llava_pose.errors import UserError
from llava_pose.vision import PyramidVisionConfig, PyramidVisionModel, load_embedded_tower

# Torchvision's features.1 … features.16, written out: (input channels, hidden, output channels, stride).
BLOCKS = [
    (32, 32, 16, 1),
    (16, 96, 24, 2), (24, 144, 24, 1),
    (24, 144, 32, 2), (32, 192, 32, 1), (32, 192, 32, 1),
    (32, 192, 64, 2), (64, 384, 64, 1), (64, 384, 64, 1), (64, 384, 64, 1),
    (64, 384, 96, 1), (96, 576, 96, 1), (96, 576, 96, 1),
    (96, 576, 160, 2), (160, 960, 160, 1), (160, 960, 160, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def tower():
    return load_embedded_tower()


def random_torchvision_state(seed=0):
    """Random weights under torchvision's names, in the shapes of its mobilenet_v2."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def layer(convolution, norm, out_channels, in_channels, kernel):
        shape = (out_channels, in_channels, kernel, kernel)
        fan_in = in_channels * kernel * kernel
        state[f"{convolution}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
        state[f"{norm}.weight"] = torch.rand(out_channels, generator=generator) + 0.5
        state[f"{norm}.bias"] = torch.randn(out_channels, generator=generator) * 0.3
        state[f"{norm}.running_mean"] = torch.randn(out_channels, generator=generator) * 0.3
        state[f"{norm}.running_var"] = torch.rand(out_channels, generator=generator) + 0.5

    layer("features.0.0", "features.0.1", 32, 3, 3)
    for number, (inputs, hidden, outputs, _) in enumerate(BLOCKS, start=1):
        name = f"features.{number}.conv"
        if number == 1:
            layer(f"{name}.0.0", f"{name}.0.1", hidden, 1, 3)
            layer(f"{name}.1", f"{name}.2", outputs, hidden, 1)
        else:
            layer(f"{name}.0.0", f"{name}.0.1", hidden, inputs, 1)
            layer(f"{name}.1.0", f"{name}.1.1", hidden, 1, 3)
            layer(f"{name}.2", f"{name}.3", outputs, hidden, 1)
    return state


def reference_maps(state, images):
    """The outputs of features.0 … features.16, layer by layer, with unfolded batch normalisation."""

    def step(x, convolution, norm, stride=1, padding=0, groups=1):
        x = F.conv2d(x, state[f"{convolution}.weight"], None, stride, padding, 1, groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-5)

    x = step(images, "features.0.0", "features.0.1", 2, 1).clamp(0, 6)
    maps = [x]
    for number, (inputs, hidden, outputs, stride) in enumerate(BLOCKS, start=1):
        name = f"features.{number}.conv"
        if number == 1:
            y = step(x, f"{name}.0.0", f"{name}.0.1", stride, 1, hidden).clamp(0, 6)
            y = step(y, f"{name}.1", f"{name}.2")
        else:
            y = step(x, f"{name}.0.0", f"{name}.0.1").clamp(0, 6)
            y = step(y, f"{name}.1.0", f"{name}.1.1", stride, 1, hidden).clamp(0, 6)
            y = step(y, f"{name}.2", f"{name}.3")
        x = x + y if stride == 1 and inputs == outputs else y
        maps.append(x)
    return maps


def synthetic_images(batch=2, height=128, width=128):
    """Smooth waves over the normalised range, the same on every machine."""
    rows = torch.arange(height, dtype=torch.float64)[None, None, :, None]
    columns = torch.arange(width, dtype=torch.float64)[None, None, None, :]
    channel = torch.arange(3, dtype=torch.float64)[None, :, None, None]
    image = torch.arange(batch, dtype=torch.float64)[:, None, None, None]
    wave = torch.sin(rows / 9 + channel) * torch.cos(columns / (7 + image)) + torch.sin(rows * columns / 900)
    return wave.float()


def relative_error(value, reference):
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def test_tokens_equal_torchvision_layers_computed_one_by_one():
    state = random_torchvision_state()
    model = PyramidVisionModel(PyramidVisionConfig()).eval()
    model.load_state_dict(fold_state_dict(state))
    images = synthetic_images(2, 64, 96)
    double = {name: value.double() for name, value in state.items()}
    maps = reference_maps(double, images.double())
    fine, middle, coarse = maps[6], maps[13], maps[16]
    assert (fine.shape, middle.shape, coarse.shape) == ((2, 32, 8, 12), (2, 96, 4, 6), (2, 160, 2, 3))
    with torch.inference_mode():
        tokens = model(images).last_hidden_state
    assert tokens.shape == (2, 24, 288)
    for row in range(4):
        for column in range(6):
            patch = fine[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = torch.cat(
                [patch.mean((2, 3)), middle[:, :, row, column], coarse[:, :, row // 2, column // 2]], 1
            )
            assert relative_error(tokens[:, row * 6 + column], expected) < 1e-5


def test_a_patch_of_32_pixels_holds_all_four_cells_of_the_finer_maps():
    state = fold_state_dict(random_torchvision_state())
    small, large = (PyramidVisionModel(PyramidVisionConfig(patch_size=size)) for size in (16, 32))
    small.load_state_dict(state)
    large.load_state_dict(state)
    images = synthetic_images(1, 64, 96)
    with torch.inference_mode():
        cells, patches = small(images).last_hidden_state, large(images).last_hidden_state
    assert (large.config.hidden_size, patches.shape) == (672, (1, 6, 672))
    for row in range(2):
        for column in range(3):
            patch = patches[0, row * 3 + column]
            inside = [cells[0, (2 * row + down) * 6 + 2 * column + right] for down in (0, 1) for right in (0, 1)]
            torch.testing.assert_close(patch[:512].unflatten(-1, (128, 4)), torch.stack(inside, -1)[:128])
            torch.testing.assert_close(patch[512:], inside[0][128:])


def test_the_embedded_tower_gives_its_fixed_numbers(tower):
    tokens = tower(synthetic_images()).last_hidden_state
    assert tokens.shape == (2, 64, 288)
    picked = [tokens[0, 0, 0], tokens[0, 27, 31], tokens[1, 36, 32], tokens[1, 63, 127], tokens[0, 9, 287]]
    expected = torch.tensor([1.4210, -0.0356, 0.3197, 0.7388, 1.2484])
    torch.testing.assert_close(torch.stack(picked), expected, rtol=1e-3, atol=1e-3)
    assert tokens.std().item() == pytest.approx(0.47335, rel=1e-3)


def test_the_embedded_tower_is_frozen_and_has_no_weights_to_initialise(tower):
    assert not tower.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert sum(parameter.numel() for parameter in tower.parameters()) == 1_324_256
    assert tower.dtype == torch.float32


def test_bfloat16_tokens_stay_close_to_float32(tower):
    images = synthetic_images()
    half = load_embedded_tower(torch.bfloat16)
    tokens = half(images).last_hidden_state
    assert tokens.dtype == torch.bfloat16
    assert relative_error(tokens, tower(images).last_hidden_state) < 0.06


def test_an_image_has_the_same_tokens_alone_and_in_any_batch(tower):
    images = synthetic_images(18, 64, 64)
    together = tower(images).last_hidden_state
    alone = torch.cat([tower(image[None]).last_hidden_state for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_tokens_come_in_reading_order(tower):
    blank = torch.zeros(1, 3, 128, 128)
    marked = blank.clone()
    marked[:, :, 32:48, 96:112] = 2.0  # the patch of row 2, column 6
    with torch.inference_mode():
        change = (tower(marked).last_hidden_state - tower(blank).last_hidden_state)[0, :, :32].norm(dim=-1)
    assert change.argmax().item() == 2 * 8 + 6


def test_gradients_flow_to_the_weights_when_the_tower_is_trained():
    model = PyramidVisionModel(PyramidVisionConfig(image_size=32))
    model(synthetic_images(1, 32, 32)).last_hidden_state.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 100, 128), "multiples of 32, got 100 × 128"),
        ((1, 3, 64, 16), "multiples of 32, got 64 × 16"),
        ((1, 3, 0, 32), "multiples of 32"),
        ((3, 64, 64), r"shape \(B, 3, H, W\), got \(3, 64, 64\)"),
        ((1, 1, 64, 64), r"shape \(B, 3, H, W\), got \(1, 1, 64, 64\)"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_numbers(tower, shape, message):
    with pytest.raises(ValueError, match=message):
        tower(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 100}, "image_size must be a positive multiple of 32, got 100"),
        ({"hidden_size": 100}, "hidden_size must be 288 with patch_size 16, got 100"),
        ({"patch_size": 14}, "patch_size must be 16 or 32, got 14"),
    ],
)
def test_a_configuration_the_tower_cannot_have_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PyramidVisionConfig(**fields)


def test_auto_classes_build_save_and_load_the_tower(tmp_path):
    config = PyramidVisionConfig(image_size=64, patch_size=32)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    loaded_config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded_config, PyramidVisionConfig)
    assert (loaded_config.image_size, loaded_config.patch_size, loaded_config.hidden_size) == (64, 32, 672)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    images = synthetic_images(1, 64, 64)
    assert torch.equal(model(images).last_hidden_state, loaded(images).last_hidden_state)


def test_llava_builds_saves_and_loads_with_the_tower(tmp_path):
    config = LlavaConfig(
        vision_config=PyramidVisionConfig(image_size=64),
        text_config=LlamaConfig(
            vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        ),
        image_token_index=39,
        image_seq_length=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(load_embedded_tower().state_dict())
    inputs = {
        "input_ids": torch.tensor([[1, *[39] * 16, 5, 6], [1, *[39] * 16, 7, 8]]),
        "attention_mask": torch.ones(2, 19, dtype=torch.long),
        "pixel_values": synthetic_images(2, 64, 64),
    }
    with torch.inference_mode():
        logits = model(**inputs).logits
    assert not torch.equal(logits[0, 17], logits[1, 17])
    model.save_pretrained(tmp_path)
    loaded, report = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded.model.vision_tower, PyramidVisionModel)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(**inputs).logits, logits)
    loaded.enable_input_require_grads()


def test_converting_another_file_is_refused_and_writes_nothing(tmp_path):
    weights = tmp_path / "other.pth"
    weights.write_bytes(b"not the weights")
    with pytest.raises(UserError, match=r"other\.pth: sha256 is .* not that of mobilenet_v2-b0353104\.pth"):
        convert(weights, tmp_path / "out")
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        convert(tmp_path / "absent.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()

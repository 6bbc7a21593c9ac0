"""Loading: upstream's files unchanged, and clear errors for files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: no T3 to test")

from speaking import alone, cpu_pass, gpu_pass, request  # noqa: E402

from chatterbex.device import tensors  # noqa: E402
from chatterbex.errors import ChatterbexError  # noqa: E402
from chatterbex.t3 import T3, Body, T3Config  # noqa: E402
from synthetic import t3 as synthetic  # noqa: E402

MODELS = tuple(synthetic.FILES)
Weights = Callable[..., dict[str, Any]]


def refusal(config: T3Config, state: dict[str, Any]) -> ChatterbexError:
    with pytest.raises(ChatterbexError) as caught:
        T3.from_state_dict(config, state)
    assert caught.value.reason == "model_load_failed"
    return caught.value


@pytest.mark.parametrize("name", MODELS)
def test_the_synthetic_files_have_the_published_layout(name: str, upstream: Any) -> None:
    config = synthetic.full(name)
    with torch.device("meta"):
        published = upstream.build(config)
    assert synthetic.shapes(config) == {
        key: tuple(value.shape) for key, value in published.state_dict().items()
    }


@pytest.mark.parametrize("name", ["english", "turbo"])
def test_weights_are_used_without_a_copy(name: str, weights: Weights) -> None:
    config = synthetic.tiny(name)
    state = weights(config)
    t3 = T3.from_state_dict(config, state)
    for key, value in t3.weights.items():
        assert value.data_ptr() == state[key].data_ptr(), key
    for key, value in Body.of(config, t3.weights).named_parameters():
        assert value.data_ptr() == state[key].data_ptr(), key
        assert not value.requires_grad


@pytest.mark.parametrize("name", ["english", "turbo"])
def test_no_pass_changes_a_weight(name: str, weights: Weights) -> None:
    config = synthetic.tiny(name)
    state = weights(config)
    before = {key: (value.clone(), value.stride()) for key, value in state.items()}
    t3 = T3.from_state_dict(config, state)
    for way in (cpu_pass, gpu_pass):
        alone(t3, request(config, max_tokens=3), way=way)
    for key, (value, stride) in before.items():
        assert torch.equal(state[key], value), key
        assert state[key].stride() == stride, key


@pytest.mark.parametrize("name", ["english", "nano"])
def test_nothing_stays_on_meta(name: str, model: Callable[..., T3]) -> None:
    config = synthetic.tiny(name)
    found = [*tensors(model(config)), *tensors(Body.of(config, model(config).weights))]
    assert {str(value.device) for _, value in found} == {"cpu"}
    assert all(torch.isfinite(value).all() for _, value in found)


def test_the_buffers_made_by_hand_are_those_of_a_module_built_the_usual_way(
    upstream: Any, model: Callable[..., T3]
) -> None:
    config = synthetic.tiny("english")
    published = upstream.build(config)
    body = Body.of(config, model(config).weights)
    by_hand = {key for key, _ in body.named_buffers()}
    assert by_hand == {"tfmr.cos", "tfmr.sin"}
    half = config.head_dim // 2
    positions = torch.arange(config.positions)[None]
    cos, sin = published.tfmr.rotary_emb(torch.zeros(1), positions)
    torch.testing.assert_close(body.tfmr.cos, cos[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(body.tfmr.sin[:, half:], sin[0, :, half:], rtol=0, atol=1e-6)
    torch.testing.assert_close(body.tfmr.sin[:, :half], -sin[0, :, :half], rtol=0, atol=1e-6)


def test_the_rope_of_the_published_model(upstream: Any) -> None:
    from chatterbex.t3.backbone import rope_frequencies

    config = T3Config.english()
    llama = upstream.t3.LlamaConfig(**upstream.configs["Llama_520M"])
    rotary = type(upstream.build(synthetic.tiny("english")).tfmr.rotary_emb)(config=llama)
    ours = rope_frequencies(config.rope, config.head_dim)
    torch.testing.assert_close(ours, rotary.inv_freq, rtol=1e-6, atol=0)


def test_a_wrapped_checkpoint_loads(weights: Weights) -> None:
    config = synthetic.tiny("english")
    one = request(config, max_tokens=5)
    plain = alone(T3.from_state_dict(config, weights(config)), one)
    assert alone(T3.from_state_dict(config, {"model": [weights(config)]}), one) == plain
    assert alone(T3.from_state_dict(config, {"model": weights(config)}), one) == plain


@pytest.mark.parametrize("name", ["english", "turbo"])
def test_weights_that_speaking_does_not_need_are_optional(name: str, weights: Weights) -> None:
    config = synthetic.tiny(name)
    state = weights(config)
    for key in ("text_head.weight", "tfmr.wte.weight", "tfmr.embed_tokens.weight"):
        state.pop(key, None)
    lean = T3.from_state_dict(config, state)
    state["tfmr.rotary_emb.inv_freq"] = torch.zeros(3)
    state["tfmr.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)
    state["tfmr.h.0.attn.bias"] = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    state["tfmr.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    one = request(config, max_tokens=5)
    assert alone(T3.from_state_dict(config, state), one) == alone(lean, one)


def test_half_precision_files_become_float32(weights: Weights) -> None:
    config = synthetic.tiny("nano")
    state = {key: value.to(torch.bfloat16) for key, value in weights(config).items()}
    t3 = T3.from_state_dict(config, state)
    assert {value.dtype for value in t3.weights.values()} == {torch.float32}


def test_all_that_is_wrong_is_listed(weights: Weights) -> None:
    config = synthetic.tiny("english")
    state = weights(config)
    del state["tfmr.norm.weight"], state["tfmr.layers.1.mlp.up_proj.weight"]
    state["tfmr.layers.9.mlp.up_proj.weight"] = torch.zeros(1)
    state["speech_emb.weight"] = state["speech_emb.weight"][:, 1:]
    state["text_emb.weight"] = state["text_emb.weight"].long()
    state["cond_enc.spkr_enc.bias"] = "no tensor"
    error = refusal(config, state)
    assert error.details["missing"] == ["tfmr.layers.1.mlp.up_proj.weight", "tfmr.norm.weight"]
    assert error.details["unexpected"] == ["tfmr.layers.9.mlp.up_proj.weight"]
    wrong = " | ".join(error.details["mismatched"])
    assert "speech_emb.weight: shape (8194, 127) instead of (8194, 128)" in wrong
    assert "text_emb.weight: torch.int64 instead of float32" in wrong
    assert "cond_enc.spkr_enc.bias: str instead of float32" in wrong
    for name in ("tfmr.norm.weight", "tfmr.layers.9.mlp.up_proj.weight", "speech_emb.weight"):
        assert name in error.message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_refused(number: float, weights: Weights) -> None:
    config = synthetic.tiny("nano")
    state = weights(config)
    state["tfmr.h.1.mlp.c_fc.weight"] = state["tfmr.h.1.mlp.c_fc.weight"].clone()
    state["tfmr.h.1.mlp.c_fc.weight"][3, 5] = number
    error = refusal(config, state)
    assert error.details["mismatched"] == ["tfmr.h.1.mlp.c_fc.weight: holds NaN or infinite numbers"]


@pytest.mark.parametrize(("file", "taken_for"), [("nano", "turbo"), ("turbo", "english")])
def test_another_models_file_is_refused(file: str, taken_for: str, weights: Weights) -> None:
    error = refusal(synthetic.full(taken_for), weights(synthetic.tiny(file)))
    assert len(error.message) < 4000


def test_an_empty_file_is_refused() -> None:
    error = refusal(synthetic.tiny("nano"), {})
    assert error.details["unexpected"] == []
    assert len(error.details["missing"]) > 10


@pytest.mark.parametrize("name", MODELS)
def test_sizes_come_from_a_small_checkpoint(name: str, weights: Weights) -> None:
    small = synthetic.small(name)
    fitted = synthetic.full(name).fitted_to(weights(small))
    assert fitted == small
    T3.from_state_dict(fitted, weights(small))


@pytest.mark.parametrize("name", MODELS)
def test_the_published_sizes_are_read_as_they_are(name: str) -> None:
    config = synthetic.full(name)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in synthetic.shapes(config).items()}
    assert config.fitted_to(state) == config
    assert config.fitted_to({}) == config


def test_a_checkpoint_is_written_once(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed: nothing to write with")
    from safetensors.torch import load_file

    config = synthetic.tiny("nano")
    path = synthetic.write(tmp_path / "nano", "nano", config)
    assert path.name == "t3_nano_v1.safetensors"
    made = path.stat().st_mtime_ns
    assert synthetic.write(tmp_path / "nano", "nano", config) == path
    assert path.stat().st_mtime_ns == made
    T3.from_state_dict(config, load_file(path))
    synthetic.write(tmp_path / "nano", "nano", config, seed=1)
    assert path.stat().st_mtime_ns != made

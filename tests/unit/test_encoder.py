"""Encoders: unit vectors, digests, words, and what happens where weights cannot be had."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from closedloop.errors import EncoderUnavailable
from closedloop.models import encoder as encoders
from closedloop.models import zero_shot
from closedloop.project import parse_manifest

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP small enough for a test, with random weights, as a user would bring one: a config and a file."""
    import open_clip

    folder = tmp_path_factory.mktemp("tiny")
    config = folder / "closedloop-tiny.json"
    config.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model("closedloop-tiny", pretrained=None, load_weights=False)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "tiny.safetensors")
    pictures = {name: t.contiguous() for name, t in model.state_dict().items() if name.startswith("visual.")}
    save_file(pictures, folder / "blind.safetensors")
    return f"openclip:{config}@{folder / 'tiny.safetensors'}"


def pictures(n: int, size: int = 64) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8)) for _ in range(n)]


def check(encoder: encoders.Encoder) -> None:
    vectors = encoder.embed(pictures(3))
    assert vectors.shape == (3, encoder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert encoder.embed(pictures(3)[1:2])[0] == pytest.approx(vectors[1], abs=1e-4)
    assert len(encoder.digest) == 64
    again, textures = encoder.embed_with_texture(pictures(3))
    assert (again == vectors).all()
    assert (textures.shape, textures.dtype) == ((3, encoder.texture_width), np.float32)
    grids = encoder.grid(pictures(3))
    assert (grids.shape, grids.dtype) == ((3, encoder.grid_side, encoder.grid_side, encoder.grid_channels), np.float32)
    assert encoder.inputs == {
        "classifier": encoder.dimension,
        "ranker": encoder.dimension + encoder.texture_width,
        "cropper": encoder.grid_channels,
    }
    assert np.isfinite(textures).all()
    assert np.isfinite(grids).all()


def test_the_embedded_encoder_sees_what_imagenet_taught_it():
    encoder = encoders.load("embedded")
    check(encoder)
    assert not encoder.knows_words
    assert encoders.load("embedded").digest == encoder.digest
    flat, other = Image.new("RGB", (64, 64), "red"), pictures(1)[0]
    alike = encoder.embed([flat, Image.new("RGB", (80, 60), (250, 5, 5)), other])
    assert alike[0] @ alike[1] > 0.9 > alike[0] @ alike[2]


def corners(size: int = 448) -> list[Image.Image]:
    """A grey picture with noise in one corner each, upper left and lower right; the second is twice as wide."""
    found = []
    for place, width in ((0, size), (size // 2, 2 * size)):
        array = np.full((size, width, 3), 128, np.uint8)
        noise = np.random.default_rng(1).integers(0, 255, (size // 2, width // 2, 3))
        array[place : place + size // 2, place * width // size : place * width // size + width // 2] = noise
        found.append(Image.fromarray(array))
    return found


def busiest(grids: np.ndarray) -> list[tuple[bool, bool]]:
    """For each grid whether the cells that differ most from the grid's median are in its lower and in its right half."""
    halves = []
    for grid in grids:
        apart = np.square(grid - np.median(grid, axis=(0, 1))).sum(axis=2)
        half = len(apart) // 2
        rows, columns = apart.sum(axis=1), apart.sum(axis=0)
        halves.append((rows[-half:].sum() > rows[:half].sum(), columns[-half:].sum() > columns[:half].sum()))
    return halves


def test_a_grid_says_where_things_are_in_the_whole_picture():
    encoder = encoders.load("embedded")
    grids = encoder.grid(corners())
    assert np.linalg.norm(grids[..., :320], axis=3) == pytest.approx(1, abs=1e-4)
    assert np.linalg.norm(grids[..., 320:], axis=3) == pytest.approx(1, abs=1e-4)
    assert busiest(grids) == [(False, False), (True, True)]


def test_a_grid_of_patches_keeps_their_places_and_what_a_centre_crop_would_cut_off(tiny):
    encoder = encoders.load(tiny)
    assert encoder.grid_side == 2
    assert np.linalg.norm(encoder.grid(corners()), axis=3) == pytest.approx(1, abs=1e-4)
    wide = Image.new("RGB", (256, 64), "grey")
    edge = wide.copy()
    edge.paste(pictures(1)[0].resize((64, 64)), (0, 0))
    (one, other), (flat, same) = encoder.grid([wide, edge]), encoder.embed([wide, edge])
    assert np.abs(one[:, 0] - other[:, 0]).max() > 10 * np.abs(flat - same).max()


def test_a_convolutional_tower_has_a_grid_and_a_texture(tmp_path):
    import open_clip

    config = tmp_path / "closedloop-cnn.json"
    tower = {"timm_model_name": "mobilenetv2_035", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64}
    config.write_text(json.dumps({**CONFIG, "vision_cfg": tower}))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model("closedloop-cnn", pretrained=None, load_weights=False)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, tmp_path / "cnn.safetensors")
    encoder = encoders.load(f"openclip:{config}@{tmp_path / 'cnn.safetensors'}")
    check(encoder)
    assert encoder.grid_side == 2


def test_a_local_open_clip_model_knows_words(tiny):
    encoder = encoders.load(tiny)
    check(encoder)
    assert encoder.knows_words
    words = encoder.embed_words(["a cat", "a dog"])
    assert np.linalg.norm(words, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_file_with_the_picture_tower_alone_knows_none(tiny):
    encoder = encoders.load(tiny.replace("tiny.safetensors", "blind.safetensors"))
    check(encoder)
    assert not encoder.knows_words


def test_class_names_answer_without_training_and_prompts_refine_them(tiny):
    encoder = encoders.load(tiny)
    plain = parse_manifest("{id: pets, title: Pets, kind: classification, classes: [cat, dog]}")
    refined = parse_manifest(
        "{id: pets, title: Pets, kind: classification, classes: [cat, dog], prompts: {cat: [a tabby]}}"
    )
    head = zero_shot.head(encoder, plain)
    probabilities = head.probabilities(encoder.embed(pictures(2)))
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    expected = encoder.embed_words(["a tabby"])[0] * encoder.word_scale
    assert zero_shot.head(encoder, refined).tensors["weight"][0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert zero_shot.head(encoder, refined).tensors["weight"][1] == pytest.approx(
        head.tensors["weight"][1], rel=1e-4, abs=1e-4
    )


def test_nothing_executes_from_a_pickle_that_calls_itself_safetensors(tiny, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(EncoderUnavailable, match="evil"):
        encoders.load(f"openclip:{tiny.removeprefix('openclip:').partition('@')[0]}@{evil}")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("resnet", "must be"),
        ("openclip:NoSuchModel", "known names"),
        ("openclip:ViT-B-32@/no/such/file.safetensors", "no file"),
    ],
)
def test_what_cannot_be_loaded_is_said_with_what_to_do(name, word):
    with pytest.raises(EncoderUnavailable, match=word):
        encoders.load(name)


def test_without_weights_or_hub_the_embedded_one_is_chosen_and_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    encoder, reason = encoders.choose("auto", encoders.load)
    assert encoder.name == "embedded"
    assert "hub did not answer" in reason
    assert "closedloop encoder use" in reason


def test_a_named_encoder_that_cannot_be_had_is_no_fallback(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EncoderUnavailable, match="copy the file"):
        encoders.choose("openclip:ViT-L-14", encoders.load)

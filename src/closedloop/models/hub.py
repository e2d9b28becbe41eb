"""Weights of OpenCLIP models from their hub, or from what it left on this machine: safetensors alone."""

import os
from pathlib import Path

import httpx

from closedloop.errors import EncoderUnavailable

HUB_SECONDS = 10.0
OPENCLIP = "openclip:"

# Models of the hub by our name: their architecture in open_clip and their repository. The file is always safetensors.
HUB = {
    "ViT-B-32": ("ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    "ViT-B-16": ("ViT-B-16", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    "ViT-L-14": ("ViT-L-14", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
}
HUB_FILE = "open_clip_model.safetensors"


def url(model: str) -> str:
    """Where a model's weights are to be had."""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{host}/{HUB[model][1]}/resolve/main/{HUB_FILE}"


def cached(model: str) -> Path | None:
    """A model's weights, where this machine has them already."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(HUB[model][1], HUB_FILE)
    return Path(path) if isinstance(path, str) else None


def answers(model: str) -> bool:
    """Whether the hub can be reached and has a model's weights; waits for it for 10 s."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        return httpx.head(url(model), timeout=HUB_SECONDS, follow_redirects=True).status_code == 200
    except httpx.HTTPError:
        return False


def fetch(name: str, model: str) -> Path:
    """A model's weights on this machine, fetched where they are missing. Raises EncoderUnavailable."""
    if there := cached(model):
        return there
    from huggingface_hub import hf_hub_download

    try:
        if not answers(model):  # the hub's own client tries for much longer
            raise ConnectionError("the hub does not answer")
        return Path(hf_hub_download(HUB[model][1], HUB_FILE, etag_timeout=HUB_SECONDS))
    except Exception as error:  # the client raises many kinds, all of which mean: not to be had
        reason = (
            f"its weights could not be fetched from {url(model)} ({error}). Connect this machine, "
            f"or copy the file here and use openclip:{model}@FILE.safetensors."
        )
        raise EncoderUnavailable(name=name, reason=reason) from None

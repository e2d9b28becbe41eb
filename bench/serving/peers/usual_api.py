"""The usual service, its model: FastAPI, one forward of torch per request, everything as it comes out of the box."""

import io
import sys

import open_clip
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from safetensors.torch import load_file

weights, port = sys.argv[1], int(sys.argv[2])
model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", load_weights=False)
model.load_state_dict(load_file(weights))
model.eval()
classes = torch.nn.functional.normalize(torch.randn(10, 512, generator=torch.Generator().manual_seed(0)), dim=1)
app = FastAPI()


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    """It runs."""
    return {"ok": True}


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, object]:
    """The class of a picture."""
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    with torch.no_grad():
        features = torch.nn.functional.normalize(model.encode_image(preprocess(image).unsqueeze(0)), dim=1)
        probabilities = (100 * features @ classes.T).softmax(dim=1)[0]
    best = int(probabilities.argmax())
    return {"label": best, "confidence": float(probabilities[best])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")

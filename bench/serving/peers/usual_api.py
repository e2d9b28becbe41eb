"""The usual service, its model: FastAPI, one forward of torch per request, everything as it comes out of the box."""

import io
import sys

import open_clip
import timm
import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

encoder, port = sys.argv[1], int(sys.argv[2])
# Of random weights: they do not change how long it takes.
if encoder == "vit":
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", load_weights=False)
    model.eval()
    encode, dimension = model.encode_image, 512
else:
    encode = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    scale = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    squash = transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC)
    preprocess, dimension = transforms.Compose([squash, *scale]), 1280
classes = torch.nn.functional.normalize(torch.randn(10, dimension, generator=torch.Generator().manual_seed(0)), dim=1)
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
        features = torch.nn.functional.normalize(encode(preprocess(image).unsqueeze(0)), dim=1)
        probabilities = (100 * features @ classes.T).softmax(dim=1)[0]
    best = int(probabilities.argmax())
    return {"label": best, "confidence": float(probabilities[best])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")

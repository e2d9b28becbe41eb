"""LitServe with the tower, the backend and the decoding of Closedloop: what remains is how it serves, and where."""

import io
import sys

import litserve
import numpy as np
import openvino
from PIL import Image

model, precision, way, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
SIZE, SHAPES = 224, (1, 8)


class Tower(litserve.LitAPI):
    """One picture a request, up to eight in a pass."""

    def setup(self, device: str) -> None:
        """Compile for all cores: one process does one pass at a time."""
        core = openvino.Core()
        self.requests = {}
        for count in SHAPES:
            tower = core.read_model(model)
            tower.reshape({0: [count, SIZE, SIZE, 3]})
            how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            self.requests[count] = core.compile_model(tower, "CPU", how).create_infer_request()
        random = np.random.default_rng(0)
        dimension = self.requests[1].model_outputs[0].partial_shape[-1].get_length()
        self.classes = random.standard_normal((10, dimension)).astype(np.float32)

    def decode_request(self, request: litserve.server.Request) -> np.ndarray:
        """As `closedloop.image.decode` and `Preparation` do."""
        image = Image.open(io.BytesIO(request["file"].file.read()))
        image.draft("RGB", (2 * SIZE, 2 * SIZE))
        image = image.convert("RGB")
        if way == "squash":
            return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        short = min(image.size)
        width, height = (int(SIZE * side / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """One array."""
        return np.stack(inputs)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Vectors, by the shapes that are compiled."""
        found, start = [], 0
        while start < len(pixels):
            count = max(shape for shape in SHAPES if shape <= len(pixels) - start)
            found.append(self.requests[count].infer({0: pixels[start : start + count]})[0])
            start += count
        return np.concatenate(found)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Row by row."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        """The class."""
        scores = self.classes @ output
        return {"label": int(scores.argmax()), "confidence": float(scores.max())}


if __name__ == "__main__":
    server = litserve.LitServer(Tower(max_batch_size=max(SHAPES), batch_timeout=0.005), accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")

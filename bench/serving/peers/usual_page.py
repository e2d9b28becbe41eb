"""The usual service, its page: Flask, which sends each picture on."""

import sys

import requests
from flask import Flask, jsonify, request

api, port = sys.argv[1], int(sys.argv[2])
app = Flask(__name__)


@app.get("/healthz")
def healthz() -> object:
    """It runs."""
    return jsonify(ok=True)


@app.post("/predict")
def predict() -> object:
    """The class of a picture."""
    file = request.files["file"]
    return jsonify(requests.post(f"{api}/predict", files={"file": (file.filename, file.read())}, timeout=120).json())


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=port)

"""The inference service (FastAPI): encoder and live heads behind HTTP."""

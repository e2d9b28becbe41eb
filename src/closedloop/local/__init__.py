"""One machine without Docker: `make run`."""

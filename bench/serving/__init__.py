"""How fast pictures are answered about, beside peers and the machine's limit: `python -m bench.serving`."""

"""Where torch lives: encoders, heads, fitting, artefacts."""

"""Commands about the encoder."""

import typer

from closedloop.cli.said import AsJson, bars, faults, now, opened, say

app = typer.Typer(help="The encoder of this installation.")


@app.callback(invoke_without_command=True)
def encoder(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the encoder of this installation."""
    if context.invoked_subcommand:
        return
    from closedloop import installations

    with faults(as_json):
        _, stores = opened()
        chosen = installations.encoder(stores)
        say(as_json, {"encoder": chosen.as_json()}, f"{chosen.name} ({chosen.digest[:12]}): {chosen.reason}")


@app.command("use")
def encoder_use(name: str, as_json: AsJson = False) -> None:
    """Re-embed, retrain and gate with another encoder; switch only if no project gets worse."""
    from closedloop import encoder_switch

    with faults(as_json), bars(as_json) as stages:
        _, stores = opened()
        chosen = encoder_switch.use(stores, name, now, stages)
    say(as_json, {"encoder": chosen.as_json()}, f"✓ {chosen.name} is used from now on.")


@app.command("quantize")
def encoder_quantize(as_json: AsJson = False) -> None:
    """Put the encoder into 8-bit numbers, by kept pictures; used only if CLOSEDLOOP_BACKEND is openvino-int8."""
    from closedloop import quantization
    from closedloop.models.converted import Converted

    with faults(as_json), bars(as_json) as stages:
        settings, stores = opened()
        done = quantization.run(stores, Converted(settings.cache), stages)
    text = (
        f"✓ Made. {done.same_labels:.1%} of {done.checked_on} other pictures keep their label (cosine of the vectors: "
        f"median {done.median_cosine:.4f}, least {done.least_cosine:.4f}); {done.times_as_fast:.2f} times as fast as "
        f"the fastest so far.\n  Set CLOSEDLOOP_BACKEND=openvino-int8 and start inference again to use it."
    )
    say(as_json, done.as_json(), text)


if __name__ == "__main__":
    app()

"""Commands that turn the loop by hand: sample, sync, embed, train, accuracy."""

import contextlib
import datetime as dt
import functools
from dataclasses import asdict
from typing import Annotated, Any

import typer

from closedloop.cli.said import AsJson, bar, bars, faults, now, opened, say
from closedloop.estimates import Estimate

app = typer.Typer()
TRAINING_PATIENCE = 600.0  # s that `train` waits for the trainer, should it be at the same project


@app.command()
def sample(project: str, as_json: AsJson = False) -> None:
    """Draw the random sample of the pictures that came since the last one, now."""
    from closedloop import project as projects
    from closedloop import sampling

    with faults(as_json):
        _, stores = opened()
        drawn = sampling.draw_sample(stores, projects.get(stores, project), now())
        body = {"project": project, "frame": drawn.frame, "drawn": drawn.drawn, "probability": drawn.probability}
        say(
            as_json,
            body,
            f"✓ {drawn.drawn} of {drawn.frame} pictures drawn, each with probability {drawn.probability:.3g}.",
        )


@app.command()
def sync(as_json: AsJson = False) -> None:
    """Deliver tasks, sync Label Studio and collect annotations, now."""
    from closedloop import outbox, survey
    from closedloop import project as projects
    from closedloop import sync as rounds
    from closedloop.inference import Inference
    from closedloop.label_studio import LabelStudio

    with faults(as_json):
        settings, stores = opened()
        delivered = 0
        while worked := outbox.work(stores, Inference(settings.inference_url, 30), now):
            delivered += worked
        done = rounds.run(stores, LabelStudio.from_settings(settings), now, patience=rounds.PATIENCE)
        for project in projects.all_projects(stores):
            survey.take(stores, project, now())
        body = {
            "outbox": delivered,
            "tasks_read": done.tasks_read,
            "answers": done.answers_collected + done.answers_reconciled,
            "quarantined": done.quarantined,
            "faults": done.faults,
        }
        lines = [f"✓ {body['outbox']} delivered, {done.tasks_read} tasks read, {body['answers']} answers collected."]
        lines += [f"  quarantined {entry}" for entry in done.quarantined] + [f"  {fault}" for fault in done.faults]
        say(as_json, body, "\n".join(lines))


@app.command()
def embed(
    project: str,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="On a Ray cluster: HOST:PORT, auto, or local.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed the pictures that have no vector yet, so that similar ones are found among them. Can be stopped."""
    from closedloop import backfill, installations
    from closedloop import project as projects
    from closedloop.models.converted import Converted

    with faults(as_json), bar(as_json, "embedding") as progress, contextlib.ExitStack() as stack:
        settings, stores = opened()
        projects.get(stores, project)
        chosen = installations.encoder(stores)
        if ray is None:
            encoder, _ = Converted(settings.cache, settings.closedloop_backend).open(chosen.name, chosen.digest)
            look = functools.partial(backfill.looked_at, stores.objects, encoder)
        else:
            from closedloop.cluster import Cluster

            look = stack.enter_context(Cluster(ray, settings, chosen)).looked_at
        done = backfill.run(stores, project, chosen.digest, look, now, progress)
    body = {"project": project, "encoder": chosen.digest, **asdict(done)}
    lines = [f"✓ {done.embedded} pictures embedded by {chosen.name}."]
    lines += [f"  {image_id}: {why}" for image_id, why in list(done.faults.items())[:20]]
    if len(done.faults) > 20:
        lines.append(f"  and {len(done.faults) - 20} more; --json names all")
    say(as_json, body, "\n".join(lines))


@app.command()
def train(
    project: str,
    head: Annotated[str | None, typer.Option(help="One head: classifier, ranker or cropper. [default: all]")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a candidate on every settled answer, judge it, and release it if it passes the gate."""
    from closedloop import project as projects
    from closedloop import training
    from closedloop.errors import TooFewAnswers

    bodies, texts, lacking = [], [], []
    with faults(as_json), bars(as_json) as stages:
        _, stores = opened()
        of = projects.get(stores, project)
        for one in of.heads if head is None else (of.check_head(head),):
            try:
                made = training.train(stores, of, now, stages, one, patience=TRAINING_PATIENCE)
            except TooFewAnswers as error:  # of this head; the others may have enough
                lacking.append(error)
                bodies.append({"head": one, "released": False, "reason": str(error), "code": error.code})
                texts.append(f"✗ {one}: {error}")
                continue
            bodies.append(
                {
                    "head": one,
                    "release": made.release,
                    "released": made.state == training.LIVE,
                    "reason": made.reason,
                    "metrics": made.card["metrics"],
                }
            )
            texts.append(_trained(one, made))
        if len(lacking) == len(bodies):
            raise lacking[0]
    only = bodies[0] if len(bodies) == 1 else {}
    say(as_json, {"heads": bodies, **only}, "\n".join(texts))


def _trained(head: str, made: Any) -> str:
    metrics = made.card["metrics"]
    low, high = metrics["value_95"]
    return (
        f"{'✓' if made.passed else '✗'} {head} {made.state}: {made.release}, {made.reason}\n"
        f"  {metrics['measure']} {metrics['value']:.3f} (95 %: {low:.3f} to {high:.3f}) "
        f"on {metrics['answers']} answers, cross-fitted"
    )


@app.command()
def accuracy(
    project: str, days: Annotated[int, typer.Option(help="How far back.", min=1)] = 30, as_json: AsJson = False
) -> None:
    """How often the model was right on what visitors sent, by release, from what annotators said."""
    from closedloop import production
    from closedloop import project as projects

    with faults(as_json):
        _, stores = opened()
        record = production.record(stores, projects.get(stores, project), now() - dt.timedelta(days=days))
        by_release = {"all": record.standing()} | {
            release: part.standing() for release, part in sorted(record.split(lambda cell: cell.release).items())
        }
        lines = [f"{project}, the last {days} days. {production.METHOD}"]
        for name, standing in by_release.items():
            lines.append(f"{name}: {standing.pictures} pictures answered")
            lines.append(f"  random sample  {_estimate(standing.sample)}")
            lines.append(f"  weighted       {_estimate(standing.weighted)}")
        body = {"project": project, "days": days, "method": production.METHOD}
        standings = {name: asdict(standing) for name, standing in by_release.items()}
        say(as_json, {**body, "accuracy": standings}, "\n".join(lines))


def _estimate(of: Estimate | None) -> str:
    if of is None:
        return "not known yet: annotators have answered too little"
    return f"{of.share:.3f} ({of.low:.3f}-{of.high:.3f}), {of.answers} answers"

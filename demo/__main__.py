"""`make demo`: four rounds of a month in minutes, then sets of pictures. Prints tables and draws a plot of it."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo import scenes
from demo.installation import CHECKOUT, Installation, live_release, started, training_runs
from demo.people import Annotators, Shown, Visitor, digits, logged_in

PROJECT = "digits"
SEED = 7
ROUNDS, PICTURES, ANSWERS = 4, 80, 70
PATIENCE = 90  # s for the services to do their part of a round


@dataclass
class Round:
    """What one round showed."""

    number: int
    release: str | None  # that answered this round's pictures
    right: int
    pictures: int
    flagged: int
    relabelled: int
    labels_used: int = 0  # by the live release at the end of the round
    queues: dict[str, tuple[int, int]] | None = None  # (tasks, answered) at the end of the round


def main() -> None:
    """Run the demo on an installation of its own."""
    arguments = argparse.ArgumentParser(prog="make demo", description=__doc__)
    arguments.add_argument("--plot", type=Path, default=Path("var/demo.png"), help="where the plot goes")
    plot = arguments.parse_args().plot
    console = Console(highlight=False)
    if not console.is_terminal:  # a file takes lines of any length
        console = Console(highlight=False, width=120)
    began = time.monotonic()
    console.print("Starting an installation of its own in a temporary folder …")
    with started() as installation:
        console.print(f"Ready after {time.monotonic() - began:.0f} s; pages at {installation.pages}")
        installation.command("project", "add", str(CHECKOUT / "projects" / "digits.yaml"))
        rounds = turn(installation, console, Visitor(installation.pages, PROJECT, SEED))
        releases = installation.command("releases", PROJECT)["releases"]
        console.print(table(rounds))
        show(releases, console)
        console.print("Now sets of pictures: which one is best, and which part of it to keep.")
        show(scenes.turn(installation, console, SEED), console)
    draw(rounds, plot)
    console.print(f"Plot: {plot}   Time: {time.monotonic() - began:.0f} s")


def show(releases: list[dict[str, Any]], console: Console) -> None:
    """A line for each release: how good it is, and what the gate said."""
    for row in releases:
        low, high = row["value_95"]
        console.print(
            f"{row['head']} {row['release']}  {row['state']:<8} {row['measure']} {row['value']:.3f} "
            f"({low:.3f}-{high:.3f}) on {row['answers']} answers; {row['reason']}",
            markup=False,
        )


def turn(installation: Installation, console: Console, visitor: Visitor) -> list[Round]:
    """Let the loop turn: visitors send and react, annotators answer, the services do the rest."""
    stream = digits(SEED)
    studio = logged_in(installation.secrets["LABEL_STUDIO_URL"], installation.secrets["LABEL_STUDIO_API_KEY"])
    annotators = Annotators(studio, PROJECT, visitor.truths, SEED)
    rounds: list[Round] = []
    began = time.monotonic()
    for number in range(1, ROUNDS + 1):
        release = wait_for_live(installation, PROJECT)
        shown: list[Shown] = []
        reactions = []
        for _ in range(PICTURES):
            one = visitor.send(*next(stream))
            shown.append(one)
            reactions.append(visitor.react(one))
        right = sum(one.label == one.truth for one in shown)
        this = Round(number, release, right, PICTURES, reactions.count("flagged"), reactions.count("relabelled"))
        rounds.append(this)
        console.print(
            f"  {time.monotonic() - began:.0f} s: round {number}: {right} of {PICTURES} right with "
            f"{release or 'no model'}"
        )
        if number < ROUNDS:
            runs = training_runs(installation, PROJECT)
            answered = wait_and_answer(annotators, ANSWERS)
            console.print(f"  {time.monotonic() - began:.0f} s: {answered} tasks answered")
            wait_for_release(installation, runs, answered)
        this.queues = annotators.sizes()
        made = installation.command("releases", PROJECT)["releases"]
        live = [row for row in made if row["state"] == "live"]
        this.labels_used = live[-1]["answers"] if live else 0
    return rounds


def wait_and_answer(annotators: Annotators, wanted: int) -> int:
    """Answer tasks as they arrive in Label Studio, until enough were answered or no more come."""
    answered, last = 0, time.monotonic()
    while answered < wanted and time.monotonic() - last < 15:
        if done := annotators.answer(wanted - answered):
            answered, last = answered + done, time.monotonic()
        time.sleep(0.5)
    return answered


def wait_for_release(installation: Installation, known: int, answered: int) -> None:
    """Wait until the services have collected the answers and the trainer has judged a candidate on them."""
    began = time.monotonic()
    while answered and training_runs(installation, PROJECT) <= known and time.monotonic() - began < PATIENCE:
        time.sleep(1)


def wait_for_live(installation: Installation, project: str) -> str | None:
    """Wait until inference serves the release that the records call live; returns it."""
    rows = installation.command("releases", project)["releases"]
    wanted = next((row["release"] for row in rows if row["state"] == "live"), None)
    began = time.monotonic()
    while live_release(installation, project) != wanted and time.monotonic() - began < 30:
        time.sleep(0.5)
    return live_release(installation, project)


def table(rounds: list[Round]) -> Table:
    """One line a round; of each queue answered / asked."""
    queues = ("random_sample", "low_confidence", "user_feedback", "user_label")
    heads = ("round", "answered by", "right", "flagged", "relabelled", "labels used", *queues)
    rows = Table(*(head.replace(" ", "\n").replace("_", "\n") for head in heads))
    for r in rounds:
        sizes = [f"{a}/{n}" for n, a in ((r.queues or {}).get(name, (0, 0)) for name in queues)]
        right = f"{r.right / r.pictures:.0%}"
        rows.add_row(
            *map(str, (r.number, r.release or "nobody", right, r.flagged, r.relabelled, r.labels_used, *sizes))
        )
    return rows


def draw(rounds: list[Round], path: Path) -> None:
    """Accuracy of the live release on each round's new pictures, and the labels that it learnt from."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    numbers = [r.number for r in rounds]
    axes.plot(numbers, [r.right / r.pictures for r in rounds], marker="o", color="#0b6e4f")
    learnt = [0] + [r.labels_used for r in rounds[:-1]]
    for r, labels in zip(rounds, learnt, strict=True):
        note = f"{r.right / r.pictures:.0%}\n{labels} labels"
        axes.annotate(note, (r.number, r.right / r.pictures), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set(xlabel="round", ylabel="right on this round's new pictures", ylim=(0, 1.18), xticks=numbers)
    axes.set_title(f"{PROJECT}: the live release on pictures that it has not seen")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

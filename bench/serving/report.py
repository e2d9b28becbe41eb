"""What was measured, as tables and a plot: `python -m bench.serving.report --into docs/speed.md`, afterwards.

Every ratio is taken within a round, and its median and extremes over the rounds are told.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from bench.serving import RESULTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLOT = Path("docs/serving.png")
OURS, USUAL, LIT = (
    "Closedloop, 32 clients: answers/s",
    "usual service, 32 clients: answers/s",
    "LitServe, 32 clients: answers/s",
)
Round = dict[str, float]
RATIOS: dict[str, tuple[str, Callable[[Round], float]]] = {
    "answers/s over the usual service's": (">= 5", lambda one: one[OURS] / one[USUAL]),
    "answers/s over LitServe's": (">= 1.2", lambda one: one[OURS] / one[LIT]),
    "answers/s over the limit": (">= 0.85", lambda one: one[OURS] / one["limit both"]),
    "p50 of one client over decode + tower": (
        "<= 1.15",
        lambda one: (
            one["Closedloop, 1 clients: p50, ms"] / (1e3 * (one["limit decode_one_s"] + one["limit tower_one_s"]))
        ),
    ),
    "p99 at 90 % load over p50 of one client": (
        "<= 4",
        lambda one: one["Closedloop, 90% load: p99, ms"] / one["Closedloop, 1 clients: p50, ms"],
    ),
    "p99 at 90 % load over that of one queue at the limit's rate, same arrivals": (
        "",
        lambda one: one["Closedloop, 90% load: p99, ms"] / one["limit, 90% load: p99, ms"],
    ),
    "goodput at 400 % load over capacity": (">= 0.9", lambda one: one["Closedloop, 400% load: answers/s"] / one[OURS]),
}


def main() -> None:
    """Write the table and the plot of what lies in bench/results."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--into", type=Path)
    chosen = arguments.parse_args()
    measured = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("serving-*.json"))]
    text = "\n\n".join([*(table(one) for one in measured), others()])
    _plot(measured)
    if not chosen.into:
        print(text)
        return
    before, rest = chosen.into.read_text(encoding="utf-8").split("<!-- serving -->", 1)
    after = rest.split("<!-- /serving -->", 1)[1]
    chosen.into.write_text(f"{before}<!-- serving -->\n{text}\n<!-- /serving -->{after}", encoding="utf-8")


def title(one: dict[str, Any]) -> str:
    """What was measured."""
    asked = one["asked"]
    encoder = {"vit": "ViT-B-32", "embedded": "embedded"}[asked["encoder"]]
    return f"{encoder}, {asked['backend']}, {asked['megapixels']:g} MP"


def table(one: dict[str, Any]) -> str:
    """Markdown."""
    rounds = one["rounds"]
    lines = [
        f"{title(one)} ({one['machine']['processor']}, {one['machine']['cores']} cores; {len(rounds)} rounds):",
        "",
        "| figure | to reach | median | least and most |",
        "| --- | --- | --- | --- |",
    ]
    for name, (wanted, ratio) in RATIOS.items():
        try:
            values = [ratio(round_) for round_ in rounds]
        except KeyError:
            continue  # measured without peers
        lines.append(
            f"| {name} | {wanted} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |"
        )
    for name, key, unit in (
        ("answers/s, 32 clients", OURS, ""),
        ("answers/s of the usual service", USUAL, ""),
        ("answers/s of LitServe", LIT, ""),
        ("answers/s at the limit", "limit both", ""),
        ("p50 of one client", "Closedloop, 1 clients: p50, ms", " ms"),
        ("p99 of what is accepted at 400 % load", "Closedloop, 400% load: p99, ms", " ms"),
    ):
        values = [round_[key] for round_ in rounds if key in round_]
        if not values:
            continue
        lines.append(f"| {name} | | {statistics.median(values):.1f}{unit} | {min(values):.1f} to {max(values):.1f} |")
    return "\n".join(lines)


def others() -> str:
    """Markdown, of the other benches whose results are there."""
    rows = {
        "start to ready, the first time, s": ("start-vit", "", lambda said: said["first start"]),
        "start to ready, the second time, s": ("start-vit", "<= 5 + reading", lambda said: said["second start"]),
        "of it, reading the weights and checking their digests, s": ("start-vit", "", lambda s: s["reading the cache"]),
        "`closedloop embed`, over the tower's rate": ("backfill-vit", ">= 0.95", _of("of_tower")),
        "`closedloop embed`, over decode + tower": ("backfill-vit", "", _of("of_limit")),
        "memory after 100,000 requests over after 1,000": ("memory", "<= 1.05", lambda said: [said["ratio"]]),
        "p99 while a release changes every second, over p99 alone": ("reload", "<= 1.2", lambda said: said["ratio"]),
        "what the pages add to inference's p50, ms": ("front", "<= 15", lambda said: said["pages add"]),
    }
    lines = ["| figure | to reach | median | least and most | rounds |", "| --- | --- | --- | --- | --- |"]
    for name, (file, wanted, values_of) in rows.items():
        if not (RESULTS / f"{file}.json").exists():
            continue
        values = values_of(json.loads((RESULTS / f"{file}.json").read_text()))
        middle, ends = f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"
        lines.append(f"| {name} | {wanted} | {middle} | {ends} | {len(values)} |")
    return "\n".join(lines)


def _of(key: str) -> Callable[[dict[str, Any]], list[float]]:
    return lambda said: [one[key] for one in said["rounds_"]]


def _plot(measured: list[dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    names = {"usual service": USUAL, "LitServe": LIT, "Closedloop": OURS, "limit": "limit both"}
    shades = dict(zip(names, ("#9aa0a6", "#5f8dd3", "#1a7f5a", "#e3e3e3"), strict=True))
    drawn = [one for one in measured if USUAL in one["rounds"][0]]
    for place, one in enumerate(drawn):
        for offset, (name, key) in enumerate(names.items()):
            values = [round_[key] for round_ in one["rounds"]]
            middle = statistics.median(values)
            error = [[middle - min(values)], [max(values) - middle]]
            at = place + (offset - 1.5) * 0.2
            left.bar(
                at, middle, 0.19, yerr=error, color=shades[name], edgecolor="#555", label=name if not place else None
            )
    left.set_xticks(range(len(drawn)), [title(one).replace(", ", "\n") for one in drawn])
    left.set_ylabel("answers a second, 32 clients")
    left.legend(frameon=False)
    for one in measured:
        loads = (50, 90, 150, 400)
        middle = [
            statistics.median(round_[f"Closedloop, {load}% load: p99, ms"] for round_ in one["rounds"])
            for load in loads
        ]
        right.plot(loads, middle, marker="o", label=title(one))
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks((50, 90, 150, 400), ("50 %", "90 %", "150 %", "400 %"))
    right.minorticks_off()
    right.set_xlabel("load, of what it can do")
    right.set_ylabel("p99 of what is answered, ms")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, dpi=130)


if __name__ == "__main__":
    main()

"""What an import says when it is done: as JSON, and in words."""

from typing import Any

from closedloop.importing.manifests import DATED, NEW, Reading
from closedloop.importing.outcome import ADDED, KNOWN, Outcome
from closedloop.importing.refusals import Refusals, quoted

_STATES = {NEW: "made", DATED: "given its dates"}  # what happens to a project


def as_json(done: Outcome, reading: Reading | None = None) -> dict[str, Any]:
    """What `--json` prints; of what was refused the first hundred, and where all of it is."""
    refusals = done.refusals
    body: dict[str, Any] = {
        "dry_run": done.dry,
        "rows": done.rows,
        "added": done.added,
        "known": done.known,
        "refused": [refusal.as_json() for refusal in refusals.first],
        "refused_count": len(refusals),
        "refused_by_reason": dict(refusals.reasons.most_common()),
        "refused_file": refusals.written and str(refusals.written),
        "by_project": {name: {ADDED: n[ADDED], KNOWN: n[KNOWN]} for name, n in sorted(done.of_project.items())},
        "times_without_zone": _without_zone(done, reading),
        "columns_not_read": list(done.not_read),
    }
    if reading:
        body["projects"] = [one.as_json() for one in reading.found]
        body["manifests_refused"] = [refusal.as_json() for refusal in reading.refused]
    return body


def text(done: Outcome, what: str, reading: Reading | None = None) -> str:
    """The same in words; `what` was imported, in the singular."""
    would = "would be " if done.dry else ""
    lines = [
        f"{'Nothing was written: ' if done.dry else '✓ '}{_count(done.added, what)} {would}added, {done.known} "
        f"{'are' if done.dry else 'were'} there already, {len(done.refusals)} {would}refused."
    ]
    if reading:
        lines += [f"  manifest {refusal}" for refusal in reading.refused]
        for one in reading.found:
            state = f" ({would}{_STATES[one.state]})" if one.state in _STATES else ""
            counts = done.of_project.get(one.project.id, {})
            lines.append(
                f"  {one.project.id}{state}: {counts.get(ADDED, 0)} {would}added, {counts.get(KNOWN, 0)} known"
            )
    lines += [f"  {refusal}" for refusal in done.refusals.first]
    lines += _of_many(done.refusals)
    if without_zone := _without_zone(done, reading):
        lines.append(f"  Without a zone, taken as UTC: {_count(without_zone, 'time')}.")
    if done.not_read:
        lines.append(f"  Columns that are not read: {', '.join(map(quoted, done.not_read))}.")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _without_zone(done: Outcome, reading: Reading | None) -> int:
    return done.without_zone + (reading.without_zone if reading else 0)


def _of_many(refusals: Refusals) -> list[str]:
    """How many there are of each reason where not all are listed, and where all are written."""
    lines = []
    if len(refusals) > len(refusals.first):
        by_reason = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in refusals.reasons.most_common())
        lines.append(f"  … {len(refusals)} in all: {by_reason}")
        if refusals.not_written:
            lines.append(f"  Their file cannot be written ({refusals.not_written}).")
        if not refusals.written:
            lines.append("  --refused FILE writes all of them.")
    if refusals.written:
        lines.append(f"  All that were refused, with their reasons: {refusals.written}")
    return lines

"""`closedloop doctor`: looks at every part and says what is wrong and what to do."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from closedloop import installations
from closedloop.errors import ClosedloopError
from closedloop.inference import Inference
from closedloop.settings import Settings
from closedloop.storage import Stores, answers, asking, open_stores

LEAST_FREE = 2**30


@dataclass(frozen=True)
class Finding:
    """One line: a part, whether it is well, what was seen."""

    part: str
    ok: bool
    seen: str

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at disk, records, store, Label Studio, inference, the scheduled services and the encoder."""
    findings = [_look("disk", lambda: _disk(settings))]
    try:
        stores = open_stores(settings)
    except ClosedloopError as error:
        return [*findings, Finding("settings", False, str(error))]
    return [
        *findings,
        _look("records", lambda: _records(stores)),
        _look("store", lambda: _store(stores)),
        _look("label studio", lambda: _label_studio(settings)),
        _look("inference", lambda: _inference(settings)),
        _look("sampler", lambda: _service(settings, settings.closedloop_sampler_port)),
        _look("trainer", lambda: _service(settings, settings.closedloop_trainer_port)),
        _look("pages", lambda: _service(settings, settings.closedloop_web_port)),
        _look("encoder", lambda: _encoder(stores)),
        _look("outbox", lambda: _outbox(stores)),
        _look("collected objects", lambda: _problems(stores)),
    ]


class _Unwell(Exception):
    """What was seen is wrong."""


def _look(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, look())
    except (ClosedloopError, _Unwell) as error:
        return Finding(part, False, str(error))
    except Exception as error:
        return Finding(part, False, f"{type(error).__name__}: {error}")


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home if settings.home.exists() else ".").free
    if free < LEAST_FREE:
        raise _Unwell(f"{free / 2**20:.0f} MiB left below {settings.home}. Free some.")
    return f"{free / 2**30:.0f} GiB free"


def _records(stores: Stores) -> str:
    stores.db.check()
    return f"{stores.db.url.get_backend_name()}, revision {stores.db.revision()[0]}"


def _store(stores: Stores) -> str:
    stores.objects.check()
    return stores.objects.endpoint_url


def _label_studio(settings: Settings) -> str:
    from closedloop.label_studio import LabelStudio

    studio = LabelStudio.from_settings(settings)
    return f"{studio.url}, as {studio.check()}"


def _inference(settings: Settings) -> str:
    said = Inference(settings.inference_url).releases()
    problems = [f"{r['project']}: {r['problem']}" for r in said["releases"] if r["problem"]]
    if problems:
        raise _Unwell("; ".join(problems))
    return ", ".join(f"{r['project']}: {r['release'] or 'no release yet'}" for r in said["releases"])


def _service(settings: Settings, port: int) -> str:
    url = f"http://{settings.host}:{port}/readyz"
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        raise _Unwell(f"it does not answer at {url} ({type(error).__name__}). Is `make run` running?") from None
    if response.status_code != 200:
        raise _Unwell(response.json().get("error", response.text[:300]))
    return url


def _encoder(stores: Stores) -> str:
    chosen = installations.encoder(stores)
    return f"{chosen.name} ({chosen.digest[:12]}): {chosen.reason}"


def _outbox(stores: Stores) -> str:
    with stores.db.read() as tx:
        count, oldest = asking.waiting(tx)
    return f"{count} waiting" + (f", the oldest since {oldest.isoformat()}" if oldest else "")


def _problems(stores: Stores) -> str:
    with stores.db.read() as tx:
        found = answers.problems(tx)
    return "; ".join(f"{row['key']}: {row['problem']}" for row in found) or "nothing was put aside"

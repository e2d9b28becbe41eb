"""`closedloop doctor`: looks at every part and says what is wrong and what to do."""

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from closedloop import installations
from closedloop import project as projects
from closedloop.errors import ClosedloopError, UnknownProject
from closedloop.inference import Inference
from closedloop.settings import Settings
from closedloop.storage import Stores, answers, asking, open_stores
from closedloop.storage.objects import BUCKETS, TRACKING

LEAST_FREE = 2**30
MOST_SKEW = 10.0  # s
PROBE = f"{TRACKING}/doctor.txt"


@dataclass(frozen=True)
class Finding:
    """One line: a part, whether it is well, what was seen."""

    part: str
    ok: bool
    seen: str

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def examine(settings: Settings, now: dt.datetime) -> list[Finding]:
    """Look at disk, records, store, Label Studio, the services and the encoder: there, allowed, on time."""
    findings = [_look("disk", lambda: _disk(settings))]
    try:
        stores = open_stores(settings)
    except ClosedloopError as error:
        return [*findings, Finding("settings", False, str(error))]
    host = settings.host
    pages = settings.closedloop_web_url or f"http://{host}:{settings.closedloop_web_port}"
    sampler = settings.closedloop_sampler_url or f"http://{host}:{settings.closedloop_sampler_port}"
    trainer = settings.closedloop_trainer_url or f"http://{host}:{settings.closedloop_trainer_port}"
    return [
        *findings,
        _look("records", lambda: _records(stores, now)),
        _look("store", lambda: _store(stores)),
        _look("label studio", lambda: _label_studio(settings)),
        _look("inference", lambda: f"{_service(settings.inference_url)}; {_releases(settings)}"),
        _look("sampler", lambda: _service(sampler)),
        _look("trainer", lambda: _service(trainer)),
        _look("pages", lambda: _service(pages)),
        _look("project", lambda: _project(settings, stores)),
        _look("encoder", lambda: _encoder(stores)),
        _look("outbox", lambda: _outbox(stores, now)),
        _look("collected objects", lambda: _problems(stores)),
    ]


class _Unwell(Exception):
    """What was seen is wrong."""


def _look(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, look())
    except ClosedloopError as error:
        return Finding(part, False, error.explained())
    except _Unwell as error:
        return Finding(part, False, str(error))
    except Exception as error:
        return Finding(part, False, f"{type(error).__name__}: {error}")


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home if settings.home.exists() else ".").free
    if free < LEAST_FREE:
        raise _Unwell(f"{free / 2**20:.0f} MiB left below {settings.home}. Free some.")
    return f"{free / 2**30:.0f} GiB free"


def _records(stores: Stores, now: dt.datetime) -> str:
    stores.db.check()
    server, clock = stores.db.server()
    return f"{server}, revision {stores.db.revision()[0]}{_skew(clock, now)}"


def _store(stores: Stores) -> str:
    stores.objects.check(*BUCKETS)
    stores.objects.put(PROBE, b"")  # a full store reads well
    stores.objects.remove(PROBE)
    url = stores.objects.endpoint_url
    response = httpx.get(url, timeout=5, trust_env=False)  # refused for want of a key, but its headers tell
    return (
        f"{url}, {response.headers.get('server', 'S3')}, all buckets open to this key, and not full{_clock(response)}"
    )


def _label_studio(settings: Settings) -> str:
    from closedloop.label_studio import LabelStudio

    studio = LabelStudio.from_settings(settings)
    user = studio.check()
    response = httpx.get(f"{studio.url}/health", timeout=5, trust_env=False)
    return f"{studio.url}, version {studio.version()}, as {user}{_clock(response)}"


def _releases(settings: Settings) -> str:
    said = Inference(settings.inference_url).releases()
    problems = [f"{r['project']}'s {r['head']}: {r['problem']}" for r in said["releases"] if r["problem"]]
    if problems:
        raise _Unwell("; ".join(problems))
    live = ", ".join(f"{r['project']}'s {r['head']}: {r['release'] or 'no release yet'}" for r in said["releases"])
    return f"{live}; computed by {_backend(said['backend'])}"


def _backend(said: dict[str, Any]) -> str:
    """Which one computes the encoder, and what became of the others."""
    tried = []
    for trial in said["trials"]:
        speed = f"{trial['pictures_per_second']:.0f} pictures/s" if trial["pictures_per_second"] else "not measured"
        tried.append(f"{trial['backend']} {trial['problem'] or speed}")
    return f"{said['backend']} on {said['cores']} cores, {said['reason']} ({', '.join(tried)})"


def _service(base: str) -> str:
    url = f"{base}/readyz"
    try:
        response = httpx.get(url, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise _Unwell(
            f"it does not answer at {url} ({type(error).__name__}). Start it with `make run`, or on a server with "
            "`docker compose up -d --wait`; if it runs, its log says more (var/logs, `docker compose logs`)."
        ) from None
    if response.status_code in (502, 504):
        raise _Unwell(f"{base} is reached, but what is behind it does not answer.")
    try:
        said = response.json()
    except ValueError:
        raise _Unwell(f"something else answers at {url}: {response.text[:200]!r}") from None
    if response.status_code != 200:
        raise _Unwell(said.get("error", response.text[:300]))
    return f"{base}, version {said['version']}{_clock(response)}"


def _project(settings: Settings, stores: Stores) -> str:
    try:
        return f"`GET /` shows {projects.get(stores, settings.closedloop_default_project).id}"
    except UnknownProject as error:
        raise _Unwell(f"{error} CLOSEDLOOP_DEFAULT_PROJECT names it, and `GET /` shows it.") from None


def _clock(response: httpx.Response) -> str:
    date = response.headers.get("date")
    return _skew(parsedate_to_datetime(date) if date else None, dt.datetime.now(dt.UTC))


def _skew(theirs: dt.datetime | None, ours: dt.datetime) -> str:
    """What to say of another machine's clock; S3 refuses requests that are 15 minutes off, leases suffer before."""
    seconds = abs((theirs - ours).total_seconds()) if theirs else 0.0
    if seconds > MOST_SKEW:
        raise _Unwell(f"its clock differs from this machine's by {seconds:.0f} s. Set both by NTP.")
    return "" if theirs is None else ", clock agrees"


def _encoder(stores: Stores) -> str:
    chosen = installations.encoder(stores)
    return f"{chosen.name} ({chosen.digest[:12]}): {chosen.reason}"


def _outbox(stores: Stores, now: dt.datetime) -> str:
    with stores.db.read() as tx:
        count, oldest = asking.waiting(tx, now)
    if oldest is None:
        return f"{count} waiting"
    tried = f", tried {oldest['attempts']} times: {oldest['error']}" if oldest["attempts"] else ""
    return f"{count} waiting, the oldest since {oldest['created_at'].isoformat()} ({oldest['kind']}{tried})"


def _problems(stores: Stores) -> str:
    with stores.db.read() as tx:
        found = answers.problems(tx)
    return "; ".join(f"{row['key']}: {row['problem']}" for row in found) or "nothing was put aside"

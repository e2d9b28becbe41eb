"""Do the pages get slower as pictures pile up? `python -m bench.pages` (two minutes, nothing needs to run).

Two made-up projects (`crowd.py`), of 1,000 and 100,000 pictures, are asked for the same pages in turn, request by
request, so that whatever else the machine does hits both alike. In one process and without a network: what is timed
is our own code and the database's. The inference service is away.
"""

import argparse
import contextlib
import datetime as dt
import json
import platform
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import sqlalchemy as sa
from flask.testing import FlaskClient
from flask_app.app import create_app
from flask_app.dashboard import TABLES
from pydantic import SecretStr

from bench import crowd
from closedloop import first_start, processor, survey
from closedloop.queues import LOW_CONFIDENCE, RANDOM_SAMPLE
from closedloop.settings import Settings
from closedloop.storage import Stores, open_stores
from closedloop.storage.database import Database

SMALL, LARGE = 1_000, 100_000
CHECKED = 200  # rows of the catalogue that are compared with what the loop would have written
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a database that is dropped in the end


@dataclass(frozen=True)
class Site:
    """An installation with a project of some size, and a browser in which its owner is signed in."""

    pictures: int
    stores: Stores
    client: FlaskClient
    addresses: dict[str, list[str]]  # page -> what is asked for in turn
    seeded: float  # s
    surveyed: float  # s


@dataclass(frozen=True)
class Timed:
    """How long a page took at both sizes, in ms, medians over the rounds; the ratio's ends are its rounds' extremes."""

    page: str
    tiles: tuple[int, int]  # pictures on it
    p50: tuple[float, float]
    p95: tuple[float, float]
    ratio: float  # of the p95, large to small
    ratio_low: float
    ratio_high: float


def main() -> None:
    """Seed both sizes, measure in turn, print a table, write JSON."""
    arguments = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    arguments.add_argument("--database-url", help="a Postgres in which schemas bench_... may be made and dropped")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=40, help="a page, size and round")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with contextlib.ExitStack() as stack:
        small, large = (
            site(stack.enter_context(database(given.database_url, count)), count) for count in (SMALL, LARGE)
        )
        timed = measure(small, large, given.rounds, given.requests)
        server, _ = small.stores.db.server()
        for one in (small, large):
            one.stores.db.close()
    body = {
        "machine": {"processor": processor.name(), "python": platform.python_version(), "database": server},
        "rounds": given.rounds,
        "requests": given.requests,
        "pictures": [SMALL, LARGE],
        "seeding_s": [small.seeded, large.seeded],
        "survey_s": [small.surveyed, large.surveyed],
        "pages_ms": [asdict(one) for one in timed],
    }
    out = given.out or Path("bench/results", "pages-postgres.json" if given.database_url else "pages.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(body, indent=2) + "\n")
    worst = max(timed, key=lambda one: one.ratio)
    print(f"a survey takes {small.surveyed:.2f} s of {SMALL:,} and {large.surveyed:.2f} s of {LARGE:,} pictures")
    print(f"worst: {worst.page}, {worst.ratio:.2f} times as long ({server}, {processor.name()})")


@contextlib.contextmanager
def database(postgres: str | None, count: int) -> Iterator[str]:
    """The URL of an empty database: SQLite in a temporary folder, or a schema of a Postgres; gone afterwards."""
    if postgres is None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/closedloop.db"
        return
    schema = f"bench_{count}"
    server = Database(postgres)
    try:
        with server.engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
        own = sa.make_url(postgres).update_query_dict({"options": f"-csearch_path={schema}"})
        yield own.render_as_string(hide_password=False)
        with server.engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    finally:
        server.close()


def site(url: str, count: int) -> Site:
    """Make an installation with a project of `count` pictures, and sign its owner in."""
    settings = Settings(  # type: ignore[call-arg]
        closedloop_database_url=url,
        closedloop_default_project="bench",
        closedloop_owner_email="owner@example.org",
        closedloop_owner_password=SecretStr(PASSWORD),
        closedloop_session_key=SecretStr("k" * 32),
        closedloop_inference_url="http://127.0.0.1:9",  # nobody answers there
        s3_endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="nobody",
        aws_secret_access_key=SecretStr("nobody"),
    )
    stores, now = open_stores(settings), dt.datetime.now(dt.UTC)
    first_start.prepare(stores, settings, now)
    began = time.perf_counter()
    made = crowd.make(stores, count, now)
    seeded = time.perf_counter() - began
    if wrong := crowd.differing(stores, made.project.id, CHECKED):
        raise AssertionError(f"{wrong} of {CHECKED} rows of the catalogue are not what the loop would have written")
    surveyed = []
    for _ in range(3):
        began = time.perf_counter()
        survey.take(stores, made.project, now)
        surveyed.append(time.perf_counter() - began)
    client = create_app(settings).test_client()
    form = client.get("/sign-in").get_data(as_text=True)
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]+)"', form))
    said = client.post(
        "/sign-in", data={"csrf_token": token, "email": settings.closedloop_owner_email, "password": PASSWORD}
    )
    if said.status_code != 303:
        raise AssertionError(said.get_data(as_text=True))
    with client.session_transaction() as session:
        session["visitor"] = crowd.VISITOR
    print(f"{count:,} pictures made in {seeded:.0f} s", flush=True)
    return Site(count, stores, client, addresses(made), seeded, statistics.median(surveyed))


def addresses(made: crowd.Crowd) -> dict[str, list[str]]:
    """Every page that is measured, each in forty variants: other classes, pictures and places in the list."""
    chance, base = random.Random(crowd.SEED), f"/p/{made.project.id}"
    by_time, by_confidence = list(made.pictures), sorted(made.pictures, key=lambda one: one[1:])

    def time_key(place: float) -> str:
        at, _, image_id = by_time[int(place * len(by_time))]
        return f"{at.isoformat()}~{image_id}"

    def confidence_key(place: float) -> str:
        _, confidence, image_id = by_confidence[int(place * len(by_confidence))]
        return f"{confidence!r}~{image_id}"

    def variants() -> dict[str, dict[str, Any]]:
        label, answer = chance.sample(made.project.classes, 2)
        middle, range_ = chance.uniform(0.3, 0.7), {"at_least": 40, "at_most": 60}
        week = by_time[int(middle * len(by_time))][0]
        dates = {"since": f"{week - dt.timedelta(days=7):%Y-%m-%d}", "until": f"{week:%Y-%m-%d}"}
        return {
            "newest": {},
            "oldest": {"order": "oldest"},
            "least sure": {"order": "least-sure"},
            "surest": {"order": "surest"},
            "a class": {"label": label},
            "a class, least sure": {"label": label, "order": "least-sure"},
            "flagged": {"flagged": "true"},
            "disagrees": {"disagrees": "true"},
            "answered": {"answered": "true"},
            "answer is a class": {"answer": answer},
            "random sample": {"queue": RANDOM_SAMPLE},
            "low confidence": {"queue": LOW_CONFIDENCE},
            "40-60 %": range_,
            "40-60 %, least sure": {**range_, "order": "least-sure"},
            "a week": dates,
            "a week, least sure": {**dates, "order": "least-sure"},
            "middle": {"after": time_key(middle)},
            "middle, back": {"before": time_key(middle)},
            "middle, least sure": {"after": confidence_key(middle), "order": "least-sure"},
            "middle, a class": {"after": time_key(middle), "label": label},
            "middle, random sample": {"after": time_key(middle), "queue": RANDOM_SAMPLE},
            "middle, 40-60 %": {"after": time_key(middle), **range_},
            "last": {"after": time_key(48.5 / len(by_time))},
            "last, least sure": {"after": confidence_key(1 - 49 / len(by_time)), "order": "least-sure"},
            "flagged, surest": {"flagged": "true", "order": "surest"},
            "disagrees, least sure": {"disagrees": "true", "order": "least-sure"},
            "a class called another": {"label": label, "answer": answer},
            "20-29 %, there is none": {"at_least": 20, "at_most": 29},
            "everything at once": {"label": label, "flagged": "true", "disagrees": "true", **range_},
        }

    found = {"dashboard": [f"{base}/dashboard"], "projects": ["/projects"], "upload, 50 sent": [f"{base}/"]}
    found |= {f"dashboard/{table}.json": [f"{base}/dashboard/{table}.json"] for table in TABLES}
    found["one picture"] = [f"{base}/images/{image_id}" for _, _, image_id in chance.sample(by_time, 40)]
    for _ in range(40):
        for name, asked in variants().items():
            found.setdefault(f"list: {name}", []).append(f"{base}/images?{urlencode(asked)}")
    return found


def measure(small: Site, large: Site, rounds: int, requests: int) -> list[Timed]:
    """Ask both sites for every page in turn; prints each page's line when all rounds are done."""
    taken: dict[str, list[tuple[list[float], list[float]]]] = {page: [] for page in small.addresses}
    tiles = {page: (_tiles(small, page), _tiles(large, page)) for page in small.addresses}
    for number in range(rounds):
        for page, seconds in taken.items():
            seconds.append(([], []))
            for request in range(requests):
                for place in (0, 1) if request % 2 else (1, 0):
                    one = (small, large)[place]
                    address = one.addresses[page][(number * requests + request) % len(one.addresses[page])]
                    seconds[-1][place].append(_ask(one, address)[0])
    print(f"{'ms':32}{f'{SMALL:,} pictures':>20}{f'{LARGE:,} pictures':>20}{'ratio of p95':>22}{'tiles':>9}")
    print(f"{'':32}{'p50':>10}{'p95':>10}{'p50':>10}{'p95':>10}")
    timed = [_summed_up(page, tiles[page], seconds) for page, seconds in taken.items()]
    for one in timed:
        numbers = "".join(f"{value:10.1f}" for pair in zip(one.p50, one.p95, strict=True) for value in pair)
        spread = f"{one.ratio:.2f} ({one.ratio_low:.2f}-{one.ratio_high:.2f})"
        print(f"{one.page:32}{numbers}{spread:>22}{'/'.join(map(str, one.tiles)):>9}")
    return timed


def _summed_up(page: str, tiles: tuple[int, int], seconds: list[tuple[list[float], list[float]]]) -> Timed:
    ms = 1000 * np.array(seconds)  # (rounds, sizes, requests)
    half, most = np.percentile(ms, 50, axis=2), np.percentile(ms, 95, axis=2)
    p50, p95 = np.median(half, axis=0), np.median(most, axis=0)
    ratios = most[:, 1] / most[:, 0]
    spread = [float(value) for value in (np.median(ratios), ratios.min(), ratios.max())]
    return Timed(page, tiles, (float(p50[0]), float(p50[1])), (float(p95[0]), float(p95[1])), *spread)


def _ask(site: Site, address: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    response = site.client.get(address)
    taken = time.perf_counter() - began
    if response.status_code != 200:
        raise AssertionError(f"{address}: {response.status}")
    return taken, response.get_data()


def _tiles(site: Site, page: str) -> int:
    """Pictures on a page, the most of five variants; it is warm afterwards."""
    return max(_ask(site, address)[1].count(b'class="card tile"') for address in (site.addresses[page] * 5)[:5])


if __name__ == "__main__":
    main()

"""A real browser (Debian's Chromium, else Playwright's own) in two sizes, one installation, and who looks at it."""

import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from closedloop import project as projects
from closedloop.project import Project
from closedloop.storage import Stores
from closedloop.storage.database import Database
from closedloop.storage.objects import Objects
from demo.installation import Installation
from tests.browser import shapes as seeding
from tests.browser.looking import sign_in, watch, width_and_window
from tests.conftest import cannot

SIZES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
OPENING = 20_000  # ms: a machine with two cores that also runs Label Studio, a model and a browser is slow at times
expect.set_options(timeout=OPENING)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=quiet)
        except Error as error:
            cannot(f"no browser: install Chromium, or run `playwright install chromium` ({str(error).splitlines()[0]})")
            return
        yield started
        started.close()


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    """The window: a wide one, or a phone."""
    return request.param


@pytest.fixture
def open_page(browser: Browser, installation: Installation, size: str) -> Iterator[Callable[..., Page]]:
    """Opens pages, each in a browser of its own. No page may fail in silence, and none may scroll sideways."""
    opened: list[tuple[Page, list[str]]] = []

    def open_page(path: str = "", **options: Any) -> Page:
        context = browser.new_context(base_url=installation.pages, **{**SIZES[size], **options})
        context.set_default_timeout(OPENING)
        page = context.new_page()
        opened.append((page, watch(page)))
        if path:
            page.goto(path)
        return page

    yield open_page
    for page, faults in opened:
        assert not faults
        if page.url != "about:blank":
            width, window = width_and_window(page)
            assert width <= window, f"{page.url} scrolls sideways"
        page.context.close()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """Somebody who is not signed in."""
    return open_page()


@pytest.fixture(scope="session")
def owner_state(browser: Browser, installation: Installation) -> Any:
    """The cookies of the first owner, who has signed in once: too many sign-ins are refused."""
    context = browser.new_context(base_url=installation.pages)
    page = context.new_page()
    page.goto("/sign-in")
    sign_in(page, *owner_login(installation))
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def owner(open_page: Callable[..., Page], owner_state: Any) -> Page:
    """The first owner, signed in."""
    return open_page(storage_state=owner_state)


@pytest.fixture(scope="session")
def records(installation: Installation) -> Iterator[Stores]:
    """The installation's own records and objects."""
    secret = installation.secrets
    database = Database(f"sqlite:///{installation.home / 'closedloop.db'}")
    s3 = f"http://127.0.0.1:{installation.ports['S3']}"
    yield Stores(database, Objects(s3, secret["AWS_ACCESS_KEY_ID"], secret["AWS_SECRET_ACCESS_KEY"]))
    database.close()


@pytest.fixture(scope="session")
def shapes(installation: Installation, records: Stores, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has lived: three releases, visitors, flags, annotators' answers, more than a page of pictures."""
    return seeding.lived(installation, records, tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def add_project(records: Stores) -> Callable[..., Project]:
    """Adds a project that has no release, and in which nothing happens by itself."""
    never = {"cron": seeding.NEVER}
    rest = {"random_sample": never, "sync": never, "train": {**never, "at_least_new": 100}}

    def add(name: str, classes: tuple[str, ...] = ("cat", "dog"), **entries: Any) -> Project:
        known = {"id": f"{name}-{secrets.token_hex(3)}", "title": f"The project {name}", "kind": "classification"}
        made = Project.model_validate({**known, "classes": classes, **rest, **entries})
        projects.add(records, made, seeding.now())
        return made

    return add


@pytest.fixture(scope="session")
def many(add_project: Callable[..., Project]) -> Project:
    """A project of more classes than one chooses from a list, without a release."""
    fruit = ("apple", "banana", "cherry", "date", "elder", "fig", "grape", "honeydew", "kiwi")
    return add_project("many", fruit, title="Which fruit?")


@pytest.fixture
def files(tmp_path: Path, picture: Callable[..., bytes]) -> Iterator[Path]:
    """Picture files, each of a picture that nobody has sent before."""

    def make() -> Iterator[Path]:
        for number in itertools.count():
            path = tmp_path / f"picture {number}.png"
            path.write_bytes(picture(secrets.randbits(32)))
            yield path

    return make()


@pytest.fixture(scope="session")
def noise() -> Callable[..., bytes]:
    """Makes pictures that no compression makes small: `noise(width, height)` are the bytes of a PNG."""

    def make(width: int, height: int | None = None) -> bytes:
        file = BytesIO()
        Image.frombytes("RGB", (width, height or width), secrets.token_bytes(3 * width * (height or width))).save(
            file, "PNG"
        )
        return file.getvalue()

    return make


def owner_login(installation: Installation) -> tuple[str, str]:
    """Address and password of the first owner."""
    return installation.secrets["CLOSEDLOOP_OWNER_EMAIL"], installation.secrets["CLOSEDLOOP_OWNER_PASSWORD"]

"""A stack of `docker compose` of its own: a copy of the checkout, a project name, free ports, random secrets."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx

from demo.installation import free_ports
from demo.people import Patient, logged_in
from scripts.env_file import read_env

CHECKOUT = Path(__file__).parents[2]
IMAGES = "closedloop-test"


class Stack:
    """One stack, handled as its owner would: files, make, docker compose."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.env = {
            k: v for k, v in os.environ.items() if not re.match("CLOSEDLOOP|S3_|AWS_|LABEL_STUDIO|PG|POSTGRES", k)
        }
        self.env["COMPOSE_PROJECT_NAME"] = name
        copy_checkout(folder)
        shutil.copy(folder / ".env.example", folder / ".env")
        web, studio = free_ports(2)
        self.set(
            CLOSEDLOOP_WEB_PORT=web,
            CLOSEDLOOP_LABEL_STUDIO_PORT=studio,
            CLOSEDLOOP_ENCODER="embedded",
            CLOSEDLOOP_UPLOADS_PER_MINUTE=0,  # a crowd at one address
            CLOSEDLOOP_IMAGES=IMAGES,
        )

    def set(self, **values: object) -> None:
        """Change lines of `.env`, as with an editor."""
        text = (self.folder / ".env").read_text()
        for name, value in values.items():
            text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        (self.folder / ".env").write_text(text)

    @property
    def values(self) -> dict[str, str]:
        """What `.env` holds."""
        return read_env((self.folder / ".env").read_text())

    @property
    def pages(self) -> str:
        """Base URL of the pages."""
        return f"http://127.0.0.1:{self.values['CLOSEDLOOP_WEB_PORT']}"

    @property
    def studio(self) -> str:
        """Base URL of Label Studio."""
        return f"http://127.0.0.1:{self.values['CLOSEDLOOP_LABEL_STUDIO_PORT']}"

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the stack's folder."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done

    def make(self, *words: str) -> str:
        """Run a target of the Makefile; returns what it prints."""
        return self.run("make", "--no-print-directory", *words).stdout

    def compose(self, *words: str, check: bool = True) -> str:
        """Run `docker compose`; returns what it prints."""
        return self.run("docker", "compose", *words, check=check).stdout

    def cli(self, *words: str, mount: Path | None = None) -> dict[str, Any]:
        """Run the command line in a container of its own; returns what `--json` prints."""
        volume = ["-v", f"{mount}:{mount}:ro"] if mount else []
        done = self.run(
            "docker", "compose", "run", "--rm", "-T", "--no-deps", *volume, "cli", *words, "--json", check=False
        )
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"closedloop {' '.join(words)}: {done.stdout}{done.stderr}") from None

    def containers(self, *services: str) -> list[str]:
        """The names of the running containers, of these services or of all."""
        return self.compose("ps", "--format", "{{.Name}}", "--status", "running", *services).split()

    def log(self, container: str, since: str) -> str:
        """What a container has logged since a moment (RFC 3339)."""
        done = self.run("docker", "logs", "--since", since, container)
        return done.stdout + done.stderr

    def admin(self, patience: float = 60) -> Patient:
        """Label Studio as its first user."""
        return logged_in(self.studio, self.values["LABEL_STUDIO_API_KEY"], patience)

    def colleague(self, email: str, patience: float = 60) -> Patient:
        """Label Studio as somebody who followed the invitation of the first user."""
        link = self.admin().get("/api/invite").json()["invite_url"]
        client = Patient(patience, base_url=self.studio, follow_redirects=True)
        client.get(link)
        form = {"email": email, "password": "Stack-test-2026", "allow_newsletters": "false"}
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        client.post(link, data=form | token, headers={"Referer": f"{self.studio}{link}"})
        client.headers.update({"X-CSRFToken": client.cookies["csrftoken"], "Referer": self.studio})
        said = client.get("/api/current-user/whoami").json()["email"]
        assert said == email, f"signed up as {email}, logged in as {said}"
        return client

    def destroy(self) -> None:
        """Remove containers, networks and volumes; the images are shared with the restored stack."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


def copy_checkout(folder: Path) -> None:
    """What git would have of the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target)


def status(url: str) -> int:
    """The status of a GET, 0 where nobody answers."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.HTTPError:
        return 0

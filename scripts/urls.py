"""Prints where a stack of `docker compose` answers, and with which login. Needs nothing but Python and Docker."""

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.env_file import read_env

PARTS = (  # part, service, its port inside, the names in .env of user and password
    ("pages", "front", 5000, "CLOSEDLOOP_OWNER_EMAIL", "CLOSEDLOOP_OWNER_PASSWORD"),
    ("Label Studio", "label-studio", 8080, "LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD"),
    ("pages by TLS", "proxy", 443, "CLOSEDLOOP_OWNER_EMAIL", "CLOSEDLOOP_OWNER_PASSWORD"),
    ("inference", "open", 8000, None, None),
    ("S3 store", "open", 9000, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("MinIO's console", "open", 9001, "root", "MINIO_ROOT_PASSWORD"),
    ("Postgres", "open", 5432, "postgres", "POSTGRES_PASSWORD"),
    ("Grafana", "grafana", 3000, "admin", "GRAFANA_PASSWORD"),
    ("Prometheus", "prometheus", 9090, None, None),
)


def main(folder: Path) -> int:
    """Print the table of the stack whose `.env` lies in a folder; returns the exit status."""
    try:
        values = read_env((folder / ".env").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        print(f"{error}. `cp .env.example .env && make secrets` makes one.", file=sys.stderr)
        return 1
    if shutil.which("docker") is None:
        print("Docker is not installed here. (`make run` prints its own table.)", file=sys.stderr)
        return 1
    understood = compose(folder, "config", "--quiet")
    if understood.returncode != 0:
        print(f"{understood.stderr.strip()}\nMend .env or docker-compose.yaml and try again.", file=sys.stderr)
        return 1
    rows = [("part", "URL", "login")]
    for part, service, port, user, password in PARTS:
        address = published(folder, service, port)
        if address:
            login = f"{values.get(user, user)} / {values.get(password or '', '(as you set it)')}" if user else "none"
            rows.append((part, f"{'https' if port == 443 else 'http'}://{address}", login))
    if len(rows) == 1:
        print("Nothing runs here. Start it with: docker compose up -d --wait", file=sys.stderr)
        return 1
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def compose(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` in a folder."""
    command = ["docker", "compose", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603


def published(folder: Path, service: str, port: int) -> str | None:
    """The address at which a running service's port is published, None where it is not."""
    found = compose(folder, "port", service, str(port))
    address = found.stdout.strip()
    return address if found.returncode == 0 and not address.endswith(":0") else None


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))

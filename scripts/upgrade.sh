#!/usr/bin/env bash
# Builds the images of this checkout, then changes over: the parts that write are stopped, the set-up migrates, all start.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/backup.sh "backups/before-upgrade-$(date -u +%Y-%m-%dT%H-%M-%SZ)"
docker compose build
"${PYTHON:-python3}" -m scripts.make_secrets # a new version may want a new one
docker compose run --rm -T --no-deps secrets
trap 'echo "Not upgraded: the parts that write are stopped. Mend what is said above and run make upgrade again." >&2' ERR
docker compose stop front web inference sampler trainer
docker compose run --rm -T setup
docker compose up -d --wait --remove-orphans
docker compose run --rm -T --no-deps cli doctor

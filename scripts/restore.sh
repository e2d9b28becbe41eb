#!/usr/bin/env bash
# Brings a backup back into an empty stack (see scripts/backup.sh). The .env must be the backup's own.
set -euo pipefail
trap 'echo "Not restored. Empty this stack with: docker compose down --volumes, then try again." >&2' ERR
cd "$(dirname "$0")/.."
from=${1:?Say which backup: make restore BACKUP=backups/2026-01-31T12-00-00Z}
for part in closedloop.dump labelstudio.dump label-studio.tar objects; do
  [ -e "$from/$part" ] || { echo "$from is not a backup: $part is missing." >&2; exit 1; }
done
docker compose up -d --wait postgres minio >/dev/null
sql() { docker compose exec -T postgres psql -U postgres -XAtq -v ON_ERROR_STOP=1 "$@"; }
if [ "$(sql -d closedloop -c "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")" != 0 ] &&
   [ "$(sql -d closedloop -c "SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM releases)")" != 0 ]; then
  echo "This stack holds pictures already, and a backup goes only into an empty one. Use another machine or project name." >&2
  exit 1
fi
docker compose stop web inference sampler trainer label-studio front >/dev/null
for database in closedloop labelstudio; do
  sql -d postgres -c "DROP DATABASE $database WITH (FORCE)" -c "CREATE DATABASE $database OWNER $database" \
    -c "REVOKE CONNECT ON DATABASE $database FROM PUBLIC"
  docker compose exec -T postgres pg_restore -U postgres --no-owner --role="$database" --exit-on-error \
    -d "$database" <"$from/$database.dump"
  echo "✓ database $database"
done
docker compose run --rm -T buckets >/dev/null
docker compose run --rm -T --no-deps -v "$(realpath "$from/objects"):/copy:ro" buckets /setup/copy.sh to-store
echo "✓ buckets"
docker compose run --rm -T --no-deps --entrypoint tar label-studio -C /data -xf - <"$from/label-studio.tar"
echo "✓ Label Studio's files"
docker compose up -d --wait
echo "Restored. make urls says where; make doctor looks at every part."

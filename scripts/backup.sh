#!/usr/bin/env bash
# Copies what a running stack cannot make again into a folder: two databases, the buckets, Label Studio's own files. The
# secrets are copied beside that folder, not into it. Pages and annotators go on; the sampler waits, since it alone
# removes objects.
set -euo pipefail
cd "$(dirname "$0")/.."
to=${1:-backups/$(date -u +%Y-%m-%dT%H-%M-%SZ)}
to=${to%/}
[ ! -e "$to" ] || { echo "$to is there already: name another folder, or remove it." >&2; exit 1; }
for part in postgres minio label-studio; do
  [ -n "$(docker compose ps -q --status running "$part")" ] || { echo "$part does not run: docker compose up -d --wait" >&2; exit 1; }
done
umask 077
partial=$to.partial
rm -rf "$partial" && mkdir -p "$partial/objects"
trap 'echo "The backup was not finished; what there is of it lies in $partial." >&2' ERR
docker compose pause sampler >/dev/null 2>&1 || true # one that does not run removes nothing
trap 'docker compose unpause sampler >/dev/null 2>&1 || true' EXIT

# The records first: whatever they name was in the buckets, and in Label Studio, before it was named.
for database in closedloop labelstudio; do
  docker compose exec -T postgres pg_dump -U postgres -Fc "$database" >"$partial/$database.dump"
  echo "✓ database $database: $(du -h "$partial/$database.dump" | cut -f1)"
done
docker compose run --rm -T --no-deps -v "$(realpath "$partial/objects"):/copy" buckets /setup/copy.sh from-store
echo "✓ buckets: $(find "$partial/objects" -type f | wc -l) objects, $(du -sh "$partial/objects" | cut -f1)"
docker compose exec -T label-studio sh -c 'tar -C /data --exclude=./.env -cf - . || [ $? = 1 ]' >"$partial/label-studio.tar" # 1: a file grew
echo "✓ Label Studio's files: $(du -h "$partial/label-studio.tar" | cut -f1)"
git rev-parse HEAD >"$partial/version" 2>/dev/null || true
cp .env "$to.secrets.env"
mv "$partial" "$to"
echo "The backup is $to. Its secrets are $to.secrets.env: keep them in another place."

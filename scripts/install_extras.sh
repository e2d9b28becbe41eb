#!/bin/sh
# Installs the needs of some extras from the lock file into .venv (see Dockerfile). With CPU=1 PyTorch comes from its
# index of CPU builds, which are 5 GB smaller; the version is the lock file's.
set -eu
uv=/uv/bin/uv
extras=""
for extra in "$@"; do extras="$extras --extra $extra"; done
if [ -z "${CPU:-}" ]; then
  exec $uv sync --locked --no-dev --no-install-project --compile-bytecode $extras
fi
$uv venv --quiet --allow-existing
$uv export --locked --no-dev --no-emit-project --quiet $extras --prune torch --prune torchvision -o /tmp/others.txt
$uv pip install --compile-bytecode --no-deps --require-hashes -r /tmp/others.txt
locked() { $uv export --locked --no-dev --no-hashes --no-emit-project --quiet $extras | sed -n "s/^\($1==[^ ;]*\).*/\1/p"; }
torch=$(locked torch)
test -z "$torch" || $uv pip install --compile-bytecode --default-index "$CPU_INDEX" "$torch" "$(locked torchvision)"

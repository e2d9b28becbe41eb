#!/bin/sh
# Label Studio in its container: tables, first user and token (again, this changes nothing), then the server.
set -eu
label-studio init -q </dev/null
cd "$(python -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("label_studio").origin))')"
exec python -m waitress --listen=0.0.0.0:8080 --threads=8 core.wsgi:application

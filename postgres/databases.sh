#!/bin/sh
# Two databases, two users: the product's and Label Studio's. Postgres runs this once, on an empty volume.
set -eu
# The passwords go in as variables that psql quotes.
psql -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres \
  -v closedloop="$CLOSEDLOOP_DB_PASSWORD" -v labelstudio="$LABEL_STUDIO_DB_PASSWORD" <<'SQL'
CREATE ROLE closedloop LOGIN PASSWORD :'closedloop';
CREATE DATABASE closedloop OWNER closedloop;
REVOKE CONNECT ON DATABASE closedloop FROM PUBLIC;
CREATE ROLE labelstudio LOGIN PASSWORD :'labelstudio';
CREATE DATABASE labelstudio OWNER labelstudio;
REVOKE CONNECT ON DATABASE labelstudio FROM PUBLIC;
SQL

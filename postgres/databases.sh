#!/bin/sh
# Two databases, two users: the product's and Label Studio's. Postgres runs this once, on an empty volume.
set -eu
# psql reads the passwords from its environment and quotes them: they stand on no command line.
psql -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres <<'SQL'
\getenv closedloop CLOSEDLOOP_DB_PASSWORD
\getenv labelstudio LABEL_STUDIO_DB_PASSWORD
CREATE ROLE closedloop LOGIN PASSWORD :'closedloop';
CREATE DATABASE closedloop OWNER closedloop;
REVOKE CONNECT ON DATABASE closedloop FROM PUBLIC;
CREATE ROLE labelstudio LOGIN PASSWORD :'labelstudio';
CREATE DATABASE labelstudio OWNER labelstudio;
REVOKE CONNECT ON DATABASE labelstudio FROM PUBLIC;
SQL

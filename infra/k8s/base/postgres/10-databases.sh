#!/bin/bash
# Run once by the image, on an empty data directory: one owner and one database for each use.
set -euo pipefail
create_owner() { # name, password, options
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$1" --set password="$2" <<SQL
CREATE ROLE :"name" LOGIN PASSWORD :'password' NOSUPERUSER $3;
SQL
}
create_database() { # name
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --set name="$1" <<SQL
CREATE DATABASE :"name" OWNER :"name";
SQL
}
# The migration makes the API's role and login, so it may create roles.
create_owner mhras "$MHRAS_PASSWORD" CREATEROLE
create_owner mlflow "$MLFLOW_PASSWORD" NOCREATEROLE
create_owner prefect "$PREFECT_PASSWORD" NOCREATEROLE
create_owner feast "$FEAST_PASSWORD" NOCREATEROLE
create_owner feast_reader "$FEAST_READER_PASSWORD" NOCREATEROLE
create_owner mhras_backup "$BACKUP_PASSWORD" NOCREATEROLE
create_owner mhras_exporter "$EXPORTER_PASSWORD" NOCREATEROLE
for database in mhras mlflow prefect feast; do create_database "$database"; done
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
REVOKE CONNECT ON DATABASE mlflow, prefect, feast FROM PUBLIC;
GRANT CONNECT ON DATABASE feast TO feast_reader;
GRANT CONNECT ON DATABASE mhras, mlflow, prefect, feast TO mhras_backup;
GRANT pg_read_all_data TO mhras_backup;
GRANT pg_monitor TO mhras_exporter;
SQL
# In `postgres` for the exporter, in the others for whoever looks for slow statements.
for database in postgres mhras mlflow prefect feast; do
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$database" \
    --command 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements'
done

#!/usr/bin/env bash
# The monthly drill: is the newest backup whole, readable with the key we hold, and how long does it take?
# Needs BACKUP_URL, BACKUP_IDENTITY_FILE, AUDIT_SIGNING_KEY, SCRATCH_URL and the object store's variables.
set -euo pipefail
: "${BACKUP_URL:?}" "${BACKUP_IDENTITY_FILE:?}" "${SCRATCH_URL:?}"
begun=$(date +%s)
result=failed
trap 'printf "%s %s %ss\n" "$(date -u +%FT%TZ)" "$result" "$(($(date +%s) - begun))" | tee -a "${DRILL_LOG:-drills.log}"' EXIT
"${PYTHON:-python}" -m infra.backup verify --scratch-url "$SCRATCH_URL"
result=passed

#!/usr/bin/env bash
# What CI asks of a cluster: it answers, it survives a drained node, its backup comes back.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PYTHON:?}"
host=api.mhras.example.com

issue() {
  kubectl exec -n mhras deploy/mhras-api -c mhras-api -- python -m serving.tokens issue \
    --user smoke --role "$1" --minutes 30
}

# By the ingress and its certificate, as from outside: HOST leads to this machine (/etc/hosts).
grep -q "$host" /etc/hosts || echo "127.0.0.1 $host" | sudo tee -a /etc/hosts >/dev/null
kubectl get secret mhras-tls -n mhras -o 'jsonpath={.data.tls\.crt}' | base64 --decode > .kind/tls.crt

smoke() {
  SSL_CERT_FILE=$PWD/.kind/tls.crt MHRAS_SMOKE_CLINICIAN_TOKEN=$(issue clinician) \
    MHRAS_SMOKE_AUDITOR_TOKEN=$(issue auditor) MHRAS_SMOKE_ADMIN_TOKEN=$(issue admin) \
    "$PYTHON" tests/smoke_tests.py --env=staging --api-url="https://$host:8443"
}

echo "a first release, trained on a simulated cohort"
kubectl exec -n mhras deploy/prefect-worker -- prefect deployment run pipeline/pipeline --watch
smoke

echo "no target of Prometheus is down"
kubectl exec -n monitoring statefulset/prometheus -- wget -qO- \
  'http://localhost:9090/api/v1/query?query=count(up==0)' | grep -q '"result":\[\]'

echo "a node is drained"
node=$(kubectl get nodes -l '!mhras/data,!node-role.kubernetes.io/control-plane' -o name | head -1)
kubectl drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout=300s
kubectl rollout status deployment/mhras-api -n mhras --timeout=300s
smoke
kubectl uncordon "$node"

echo "a backup, out of the cluster, restored on this machine"
kubectl delete job ci-backup -n mhras --ignore-not-found
kubectl create job ci-backup --from=cronjob/postgres-backup -n mhras
kubectl wait --for=condition=complete job/ci-backup -n mhras --timeout=900s
kubectl exec -n mhras deploy/mlflow -- tar --create --directory /data/backups . | tar --extract --directory .kind
BACKUP_URL="$PWD/.kind" BACKUP_IDENTITY_FILE="$PWD/.kind/key.txt" "$PYTHON" -m infra.drill

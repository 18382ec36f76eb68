#!/usr/bin/env bash
# The overlay `kind` with images of this commit. Needs REGISTRY and VERSION of `make -C infra images`.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${REGISTRY:?}" "${VERSION:?}" "${PYTHON:?}"

for target in mhras-api mhras-flows; do
  kind load docker-image --name mhras "$REGISTRY/$target:$VERSION"
done
"$PYTHON" -m infra.cluster.release set "$VERSION" --registry "$REGISTRY"

kubectl apply -k infra/k8s/base/namespaces
mkdir -p .kind
"$PYTHON" -m infra.backup keygen > .kind/key.txt
chmod 600 .kind/key.txt
recipient=$(sed -n 's/^# public key (BACKUP_RECIPIENTS): //p' .kind/key.txt)
# What a site gets from others; here nothing answers behind it.
export BACKUP_RECIPIENTS=$recipient ALERT_WEBHOOK_URL=http://localhost:9/ DEADMAN_URL=http://localhost:9/
for name in MODEL_STORAGE LAKE_STORAGE AUDIT_STORAGE BACKUP_STORAGE; do
  export "${name}_KEY_ID=none" "${name}_KEY=none"
done
export PAGERDUTY_KEY=none PAGERDUTY_CLINICAL_KEY=none SMTP_PASSWORD=none OIDC_CLIENT_ID=none OIDC_CLIENT_SECRET=none
kubectl get secret mhras-secrets -n mhras >/dev/null 2>&1 ||
  "$PYTHON" -m infra.cluster.secrets --environment staging --escrow "$PWD/.kind" | kubectl apply -f -

kubectl apply -k infra/k8s/overlays/kind
release=$(kubectl get configmap mhras-release -n mhras -o 'jsonpath={.data.suffix}')
kubectl wait --for=condition=complete "job/mhras-migration-$release" -n mhras --timeout=900s
kubectl wait --for=condition=complete "job/mhras-registration-$release" -n mhras --timeout=1800s
kubectl rollout status deployment/mhras-api -n mhras --timeout=900s
for place in prometheus grafana alertmanager loki; do
  kubectl rollout status "statefulset/$place" -n monitoring --timeout=600s
done

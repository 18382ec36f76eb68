#!/usr/bin/env bash
# A cluster like a site's, on one machine. Versions are named here and nowhere else.
set -euo pipefail
cd "$(dirname "$0")"
calico=v3.30.2 cert_manager=v1.18.2 ingress=controller-v1.13.1 metrics=v0.8.0
github=https://raw.githubusercontent.com

kind create cluster --config cluster.yaml
kubectl apply -f "$github/projectcalico/calico/$calico/manifests/calico.yaml"
kubectl wait --for=condition=ready node --all --timeout=300s
kubectl apply -f "https://github.com/cert-manager/cert-manager/releases/download/$cert_manager/cert-manager.yaml"
kubectl apply -f "$github/kubernetes/ingress-nginx/$ingress/deploy/static/provider/kind/deploy.yaml"
kubectl apply -f "https://github.com/kubernetes-sigs/metrics-server/releases/download/$metrics/components.yaml"
# A kubelet of kind signs its own certificate.
kubectl patch deployment metrics-server -n kube-system --type=json \
  -p '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'
for place in cert-manager/cert-manager cert-manager/cert-manager-webhook \
  ingress-nginx/ingress-nginx-controller kube-system/metrics-server; do
  kubectl rollout status "deployment/${place#*/}" -n "${place%/*}" --timeout=300s
done

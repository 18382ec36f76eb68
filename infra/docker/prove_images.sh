#!/usr/bin/env bash
# Builds both images and starts them as Kubernetes would: uid 1000, root file system read-only, no
# capabilities. Needs neither a Docker daemon nor an image registry, only root and Debian's
# buildah, podman, runc and debootstrap:
#
#     infra/docker/prove_images.sh [api|flows ...]
#
# The base is Debian 12 with its Python 3.11, tagged with the name the Dockerfile asks for.
# SSL_CERT_FILE, where set, is trusted in it too; WHEELS names a folder of wheels to take torch from.
set -euo pipefail
cd "$(dirname "$0")/../.."

export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
base=$(sed -n 's/^ARG PYTHON=//p' infra/docker/Dockerfile)
port=${PORT:-18999}

make_base() {
  buildah inspect --type image "$base" >/dev/null 2>&1 && return
  local root container
  root=$(mktemp -d)
  debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-pip,ca-certificates \
    bookworm "$root" >"$root.log" || { tail "$root.log"; return 1; }
  ln -sf python3.11 "$root/usr/bin/python"
  rm -f "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
  if [ -n "${SSL_CERT_FILE:-}" ]; then
    cp -L "$SSL_CERT_FILE" "$root/etc/ssl/certs/ca-certificates.crt"
  fi
  container=$(buildah from scratch)
  buildah copy -q "$container" "$root" / >/dev/null
  buildah config --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$container"
  buildah commit -q "$container" "$base" >/dev/null
  buildah rm "$container" >/dev/null
  rm -rf "$root" "$root.log"
}

build() {
  local wheels=()
  if [ -n "${WHEELS:-}" ]; then
    wheels=(--volume "$WHEELS:/opt/wheels:ro" --build-arg UV_FIND_LINKS=/opt/wheels
      --build-arg TORCH_BACKEND=)
  fi
  # Debian's own client, so that nothing but Debian's archive and the packages' index is asked.
  buildah bud --build-arg POSTGRES_CLIENT= --pull-never --network host --target "mhras-$1" -f infra/docker/Dockerfile \
    --build-arg "REVISION=$(git rev-parse HEAD)" "${wheels[@]}" -t "mhras-$1:proof" .
}

start() {
  podman rm -f "proof-$1" >/dev/null 2>&1 || true
  podman --runtime runc run -d --name "proof-$1" --network host --read-only --tmpfs /tmp \
    --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=1024:1024 --ulimit nproc=2048:2048 "${@:2}" >/dev/null
}

start_api() {
  # No database and no registry: the pod must start and say so, not crash.
  start api --env DATABASE_URL=postgresql://nobody:nothing@127.0.0.1:1/none \
    --env MLFLOW_TRACKING_URI=http://127.0.0.1:1 --env AUDIT_CHECKPOINT_URL=memory://audit \
    --env JWT_SECRET_KEY="$(head -c 32 /dev/urandom | base64 -w0)" \
    --env ANONYMIZATION_SALT="$(head -c 32 /dev/urandom | base64 -w0)" \
    --env AUDIT_SIGNING_KEY="$(head -c 32 /dev/urandom | base64 -w0)" \
    --env RELEASE_PUBLIC_KEYS="$(head -c 32 /dev/urandom | base64 -w0)" \
    mhras-api:proof --host 127.0.0.1 --port "$port"
}

start_flows() {
  start flows mhras-flows:proof prefect server start --host 127.0.0.1 --port "$port"
}

wait_until_answered() {
  for _ in $(seq 120); do
    curl --silent --fail --output /dev/null "$1" && return
    sleep 1
  done
  podman logs --tail 20 "$2"
  return 1
}

check() {
  wait_until_answered "http://127.0.0.1:$port/$2" "proof-$1"
  [ "$(podman exec "proof-$1" id -u)" = 1000 ]
  if podman exec "proof-$1" touch /written 2>/dev/null; then
    echo "mhras-$1: the root file system can be written" >&2
    return 1
  fi
  if ! podman exec "proof-$1" sh -c 'ls /opt/mhras/lib/python3.11/site-packages/serving/__pycache__/*.pyc' >/dev/null; then
    echo "mhras-$1: its modules are not compiled, so every process compiles them" >&2
    return 1
  fi
  echo "mhras-$1: $(podman exec "proof-$1" du -sm /opt/mhras | cut -f1) MB of Python environment," \
    "starts as uid 1000 with a read-only root"
  podman stop --time 30 "proof-$1" >/dev/null
  [ "$(podman inspect "proof-$1" --format '{{.State.ExitCode}}')" = 0 ]
  podman rm "proof-$1" >/dev/null
}

make_base
[ $# -gt 0 ] || set -- api flows
for target in "$@"; do
  build "$target"
  case $target in
    api) start_api && check api health ;;
    flows) start_flows && check flows api/health ;;
  esac
done

#!/usr/bin/env bash
# Gives the gateway what it needs of a control plane's data folder, and nothing else of it: the deployment's certificate, and the
# key of the link. Both files are there once the control plane has been started with FOREDECK_GATEWAY.
#
#   deploy/kubernetes/gateway-secret.sh [DATA FOLDER]
set -euo pipefail
data=${1:-/var/lib/foredeck}
kubectl create secret generic foredeck-gateway --namespace foredeck --dry-run=client -o yaml \
  --from-file=deployment.pem="$data/deployment.pem" \
  --from-file=gateway.key="$data/gateway.key" | kubectl apply -f -

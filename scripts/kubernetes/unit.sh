#!/usr/bin/env bash
# Runs helm-unittest on helm/feed/tests. It is built from source, once, into node_modules/.cache; that takes some minutes, so CI
# has scripts/chart.sh instead. Needs Go and the Go module proxy.
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=v1.1.2
program=$PWD/node_modules/.cache/helm-unittest-$VERSION
if [ ! -x "$program" ]; then
  echo "Building helm-unittest $VERSION (once, some minutes) ..."
  # Not by `go install`, which refuses a module that replaces another one.
  source=$(go mod download -json "github.com/helm-unittest/helm-unittest@$VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  (cd "$source" && CGO_ENABLED=0 go build -buildvcs=false -ldflags '-s -w' -o "$program" ./cmd/helm-unittest)
fi
"$program" --strict "$@" helm/feed

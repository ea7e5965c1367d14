#!/usr/bin/env bash
# Does the container image work? Builds the Dockerfile for real, with neither a Docker engine nor an image
# registry, and runs it as the chart does: non-root, read-only root filesystem, no capabilities. An event is
# uploaded and watched, the container stopped, started again on the same volume, and the event watched again.
#
# The base image that FROM names is made here, out of Debian's packages and the npm packages `node` and
# `npm`. So this checks what the Dockerfile does, not what the registry serves under that name.
#
# Needs: Linux, root, installed dependencies (npm test installs them), the npm registry, a Debian mirror, and
#   apt-get install --no-install-recommends podman runc debootstrap debian-archive-keyring
# Takes about two minutes and 2 GB under $TMPDIR, and removes all that it made.
set -euo pipefail
cd "$(dirname "$0")/.."

NPM_VERSION=11.21.2
IMAGE=localhost/feed:check

say() { printf '%s\n' "$*"; }
fail() {
  printf 'FAILED: %s\n' "$1" >&2
  # What the failed step said, if it was written to a file.
  if [ -n "${2:-}" ]; then tail -n 40 "$2" >&2; fi
  exit 1
}

[ "$(id -u)" = 0 ] || fail 'needs root, to make a base image and run containers'
for tool in podman runc debootstrap nsenter; do
  command -v "$tool" >/dev/null || fail "needs $tool: see the top of scripts/image.sh"
done
node=$PWD/node_modules/node/bin/node
[ -x "$node" ] || fail 'the dependencies are not installed: npm test installs them'

# --- One node everywhere: the Dockerfile's and the dev dependency's.

base=$(sed -n 's/^ARG NODE_IMAGE=//p' Dockerfile)
[[ $base =~ ^node:([0-9.]+)-([a-z]+)-slim$ ]] ||
  fail "Dockerfile: NODE_IMAGE=$base is not an exact version, node:<version>-<debian>-slim"
node_version=${BASH_REMATCH[1]}
debian=${BASH_REMATCH[2]}
wanted=$("$node" -p 'require("./package.json").devDependencies.node')
[ "$node_version" = "$wanted" ] ||
  fail "Dockerfile has node $node_version, package.json has $wanted: make them the same"
say "ok: Dockerfile and package.json agree on node $node_version"

# --- Everything is kept in one directory, podman's images and volumes too: the machine's own are not touched.

work=$(mktemp -d "${TMPDIR:-/tmp}/feed-image.XXXXXX")
podman() {
  command podman --root "$work/storage" --runroot "$work/run" --runtime runc \
    --cgroup-manager cgroupfs --events-backend none "$@"
}
clean() {
  podman rm --all --force >/dev/null 2>&1 || true
  # What podman, or a debootstrap cut short, left mounted; the last mounted first.
  findmnt --raw --noheadings --output TARGET | grep -F "$work/" | tac | xargs --no-run-if-empty umount || true
  rm -rf --one-file-system "$work"
  # Empty cgroups that podman leaves behind; rmdir refuses any in use.
  find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || true
}
trap clean EXIT
trap 'exit 130' INT TERM

# --- The base image.

say "Making the base image: Debian $debian with node $node_version (about 40 s) ..."
debootstrap --variant=minbase "$debian" "$work/base" >"$work/log" 2>&1 ||
  fail "debootstrap could not install Debian $debian" "$work/log"
(cd "$work" && npm pack --silent "npm@$NPM_VERSION" >"$work/log" 2>&1) ||
  fail "npm@$NPM_VERSION could not be had from the npm registry" "$work/log"
mkdir -p "$work/base/usr/local/lib/node_modules/npm" "$work/base/etc/ssl/certs"
tar -xzf "$work/npm-$NPM_VERSION.tgz" -C "$work/base/usr/local/lib/node_modules/npm" --strip-components=1
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/base/usr/local/bin/npm"
cp "$node" "$work/base/usr/local/bin/node"
# The build reaches the npm registry with the certificates that this machine trusts.
certificates=/etc/ssl/certs/ca-certificates.crt
cp --dereference "$certificates" "$work/base$certificates"
# ENTRYPOINT and CMD as the official image has them: the Dockerfile must replace both.
tar -C "$work/base" -c . | podman import --quiet \
  --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["node"]' \
  --change "ENV NODE_EXTRA_CA_CERTS=$certificates" - "docker.io/library/$base" >"$work/log" 2>&1 ||
  fail 'podman could not import the base image' "$work/log"

# --- The image.

say 'Building the image (about a minute) ...'
# Isolation chroot: build steps run without a container of their own, which works in more places.
podman build --isolation chroot --pull-never --network host --tag "$IMAGE" . >"$work/log" 2>&1 ||
  fail 'the image could not be built' "$work/log"

config() { podman image inspect --format "$1" "$IMAGE"; }
is() { # what, expected, actual
  [ "$2" = "$3" ] || fail "$1 is '$3', not '$2'"
  say "ok: $1 is $3"
}
is 'the user' '65532:65532' "$(config '{{.Config.User}}')"
is 'the command' '[/app/bin/feed-server] []' "$(config '{{.Config.Entrypoint}} {{.Config.Cmd}}')"
is 'the volume' 'map[/data:{}]' "$(config '{{.Config.Volumes}}')"

root=$(podman image mount "$IMAGE")
found=$("$node" -e '
  const { packages } = require("./package-lock.json");
  const { existsSync } = require("node:fs");
  const found = Object.keys(packages).filter(
    (path) => packages[path].dev && existsSync(`${process.argv[1]}/app/${path}`),
  );
  console.log(found.join(" "));
' "$root")
[ -z "$found" ] || fail "the image holds development dependencies: $found"
say "ok: no development dependencies; /app has $(du -sm "$root/app" | cut -f1) MB"
podman image unmount "$IMAGE" >/dev/null

# --- It runs.

# No network but its own loopback, where the client joins it: so no port of this machine is used. Low limits,
# because podman's own are higher than some machines allow their root to set.
start() { # options of podman run
  podman run "$@" --detach --name feed --network none --volume feed:/data \
    --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=4096:4096 --ulimit nproc=1024:1024 "$IMAGE" >"$work/log" 2>&1 ||
    fail 'the container did not start' "$work/log"
}
failed() {
  podman logs feed >"$work/log" 2>&1 || true
  fail "$1; the container's log:" "$work/log"
}
client() { # put | get
  nsenter --net --target "$(podman inspect --format '{{.State.Pid}}' feed)" \
    "$node" --input-type=module - "$1" <<'JS'
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const contract = loadSync('feed/v1/feed.proto', { includeDirs: ['proto'], enums: String });
const { FeedService } = grpc.loadPackageDefinition(contract).feed.v1;

async function ready() {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(100)) {
    const answer = await fetch('http://127.0.0.1:8080/readyz').catch(() => undefined);
    if (answer?.ok) return;
  }
  throw new Error('/readyz was not OK within 30 s');
}

await ready();
const client = new FeedService('127.0.0.1:50051', grpc.credentials.createInsecure());
const deadline = Date.now() + 10_000;
const line = await new Promise((resolve, reject) => {
  if (process.argv[2] === 'put') {
    const upload = client.uploadEvents({ deadline }, (error, result) =>
      error ? reject(error) : resolve(`${result.received} ${result.durability}`),
    );
    upload.end({ id: 'first', topic: 'image.check', body: 'hello' });
  } else {
    const start = { topic: 'image.check', position: 'START_POSITION_EARLIEST' };
    const watch = client.watch(start, { deadline });
    watch.on('error', reject);
    watch.once('data', (event) => {
      resolve(`${event.id} ${event.body}`);
      watch.cancel();
    });
  }
});
console.log(line);
client.close();
JS
}
put() {
  local answer
  answer=$(client put) || failed 'the upload failed'
  is 'the answer to an upload' '1 DURABILITY_FSYNC' "$answer"
}
get() {
  local event
  event=$(client get) || failed 'the watch failed'
  is "$1" 'first hello' "$event"
}
stop() {
  podman stop --time 30 feed >/dev/null 2>&1 || failed 'podman could not stop the container'
  local code
  code=$(podman inspect --format '{{.State.ExitCode}}' feed)
  [ "$code" = 0 ] || failed "the container ended with $code after SIGTERM (137: killed after 30 s)"
  say 'ok: SIGTERM ends it with exit code 0'
  podman rm feed >/dev/null
}

start
put
is 'process 1' 'node' "$(podman exec feed readlink /proc/1/exe | sed 's,.*/,,')"
get 'the event watched'
stop
start --env NODE_DEBUG_NATIVE=COMPILE_CACHE
get 'the event watched after a restart on the same volume'
podman logs feed >"$work/log" 2>&1
compiled=$(grep -c 'V8 code cache for .* was accepted' "$work/log" || true)
[ "$compiled" -gt 1000 ] || fail "only $compiled modules came compiled with the image" "$work/log"
say "ok: $compiled modules came compiled with the image"
stop
# While it starts: process 1 gets no signal that it does not handle yet.
start
sleep 0.2
stop
say 'The image works.'

#!/usr/bin/env bash
# Does the container image work? Builds the Dockerfile for real, with neither a Docker engine nor an image
# registry, and runs it as the chart does: non-root, read-only root filesystem, no capabilities. An event is
# uploaded and watched, the console's files are there, the container stopped, started again on the same volume, and the event watched again.
#
#   scripts/image.sh [FILE]      also saves the image to FILE, as `podman save --format docker-archive`
#
# The base images that FROM names are made here, out of Debian's packages and the npm packages `node` and
# `npm`. So this checks what the Dockerfile does, not what the registry serves under those names.
#
# Needs: Linux, root, installed dependencies (npm test installs them), the npm registry, a Debian mirror, and
#   apt-get install --no-install-recommends podman runc debootstrap debian-archive-keyring
# Takes about two minutes and 2 GB under $TMPDIR, and removes all that it made.
set -euo pipefail
cd "$(dirname "$0")/.."

NPM_VERSION=11.21.2
IMAGE=localhost/feed:check
# The most that the image may take unpacked, in MB, and how long the fastest of three starts on an empty volume may take, in milliseconds.
# On a busy machine, set the latter higher.
MOST_MB=250
MOST_READY_MS=${MOST_READY_MS:-1000}

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
slim=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
[ "$slim" = "debian:$debian-slim" ] || fail "Dockerfile: BASE_IMAGE=$slim is not the Debian of $base"

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

# --- The base images.

say "Making the base images: Debian $debian with node $node_version (about 40 s) ..."
debootstrap --variant=minbase "$debian" "$work/base" >"$work/log" 2>&1 ||
  fail "debootstrap could not install Debian $debian" "$work/log"
# Debian's slim images have none of this either.
(
  cd "$work/base"
  rm -rf usr/share/{doc,groff,info,linda,lintian,locale,man}/* var/cache/apt/* var/cache/debconf/* var/lib/apt/lists/* var/log/*
)
tar -C "$work/base" -c . | podman import --quiet - "docker.io/library/$slim" >"$work/log" 2>&1 ||
  fail 'podman could not import the base image' "$work/log"
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
version=$("$node" -p 'require("./package.json").version')
podman build --isolation chroot --pull-never --network host --tag "$IMAGE" --build-arg VERSION="$version" \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" . >"$work/log" 2>&1 ||
  fail 'the image could not be built' "$work/log"

config() { podman image inspect --format "$1" "$IMAGE"; }
is() { # what, expected, actual
  [ "$2" = "$3" ] || fail "$1 is '$3', not '$2'"
  say "ok: $1 is $3"
}
is 'the user' '65532:65532' "$(config '{{.Config.User}}')"
is 'the command' '[/app/bin/feed-server] []' "$(config '{{.Config.Entrypoint}} {{.Config.Cmd}}')"
is 'the volume' 'map[/data:{}]' "$(config '{{.Config.Volumes}}')"
is 'the version in its labels' "$version" "$(config '{{index .Config.Labels "org.opencontainers.image.version"}}')"

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
unpacked=$(($(podman image inspect --format '{{.Size}}' "$IMAGE") / 1000000))
[ "$unpacked" -lt "$MOST_MB" ] || fail "the image takes $unpacked MB unpacked, and may take $MOST_MB"
say "ok: no development dependencies; $unpacked MB unpacked, of which /app has $(du -sm "$root/app" | cut -f1) MB"
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
client() { # put | get | console
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

/** The statuses of the console's page and of the files that it loads. */
async function consoleStatuses() {
  const page = await fetch('http://127.0.0.1:8080/console/');
  const files = Array.from((await page.text()).matchAll(/(?:src|href)="([^"]+)"/g), ([, file]) => file);
  const answers = await Promise.all(files.map((file) => fetch(new URL(file, page.url))));
  return [page, ...answers].map(({ status }) => status).join(' ');
}

await ready();
const client = new FeedService('127.0.0.1:50051', grpc.credentials.createInsecure());
const deadline = Date.now() + 10_000;
const line = await new Promise((resolve, reject) => {
  if (process.argv[2] === 'console') resolve(consoleStatuses());
  else if (process.argv[2] === 'put') {
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

# Polled without a process for each look, so that the figure is the container's.
ready_ms() { # when it was started, in milliseconds since 1970
  timeout 30 nsenter --net --target "$(podman inspect --format '{{.State.Pid}}' feed)" "$node" --input-type=module - "$1" <<'JS'
import { setTimeout as sleep } from 'node:timers/promises';

let answer;
while (!answer?.ok) {
  answer = await fetch('http://127.0.0.1:8080/readyz').catch(() => undefined);
  await sleep(5);
}
console.log(Date.now() - process.argv[2]);
JS
}

ready=999999
for _ in 1 2 3; do
  podman rm --force feed >/dev/null 2>&1 || true
  podman volume rm feed >/dev/null 2>&1 || true
  start
  since=$(date -d "$(podman inspect --format '{{.State.StartedAt.Format "2006-01-02T15:04:05.000Z07:00"}}' feed)" +%s%3N)
  took=$(ready_ms "$since") || failed 'it was not ready within 30 s'
  [ "$took" -ge "$ready" ] || ready=$took
done
[ "$ready" -lt "$MOST_READY_MS" ] || fail "it was ready on an empty volume after $ready ms, and may take $MOST_READY_MS"
say "ok: ready on an empty volume after $ready ms"
put
is 'the console: its page, script, styles and icon' '200 200 200 200' "$(client console)"
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
if [ -n "${1:-}" ]; then
  podman save --quiet --format docker-archive --output "$1" "$IMAGE"
  say "ok: saved to $1 as $IMAGE"
fi
say 'The image works.'

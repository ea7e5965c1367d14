#!/usr/bin/env bash
# Does the chart keep its promises on a real cluster? Installs it in a namespace of its own, runs `helm test`, and then upgrades,
# kills, freezes and fills it under the load of scripts/kubernetes/load.ts: 20 uploads and 200 watches of the SDK in another pod,
# which must see each event once. Says how long each step takes and what the load saw of it, and removes what it made, whatever
# happens. By hand, not in CI: it takes about ten minutes.
#
#   scripts/image.sh feed.tar
#   LOAD_IMAGE='kind load image-archive' scripts/kubernetes.sh feed.tar [one|replicas]
#
#   one         one process with its volume; replicas: three replicas on three NATS servers; by default both
#   LOAD_IMAGE  loads an image of `podman save --format docker-archive` into the cluster; gets the file as its argument
#   KUBECTL, HELM   the commands, with the cluster to use: `kubectl` and `helm`, which use KUBECONFIG
#   ON_NODE     runs a command on the cluster's only node as root, such as `docker exec kind-control-plane`. Without it, steps that
#               need it are left out: what kills a container or freezes it from outside
#   STORAGE_CLASS   for the volumes; by default the cluster's own default
#   LOCAL_VOLUMES   a folder on the only node, for a cluster that makes no volumes by itself: each volume is a folder there, the
#               first one a tmpfs of 512 MiB, so that it can be filled. Needs ON_NODE
#   UPGRADES    how many upgrades in a row (10)
#   UPLOADS, WATCHES   the load (20, 200)
#   VALUES      more arguments of `helm install`, such as '--set drain.delaySeconds=0'
set -euo pipefail
cd "$(dirname "$0")/.."

archive=${1:?the image: scripts/image.sh FILE makes it}
parts=${2:-one replicas}
: "${LOAD_IMAGE:?a command that loads an image into the cluster}"
UPGRADES=${UPGRADES:-10}
UPLOADS=${UPLOADS:-20}
WATCHES=${WATCHES:-200}
run=$(date +%s)
namespace=feed-check-$run
work=$(mktemp -d)
node=$PWD/node_modules/.bin/node
# Whole paths: the commands may run in another folder.
chart=$PWD/helm/feed

kubectl() { ${KUBECTL:-kubectl} --namespace "$namespace" "$@"; }
helm() { ${HELM:-helm} --namespace "$namespace" "$@"; }
on_node() { $ON_NODE "$@"; }
say() { printf '%s\n' "$*"; }
fail() {
  say "FAILED: $*" >&2
  exit 1
}
now() { date +%s.%N; }
since() { awk "BEGIN { printf \"%.1f\", $(now) - $1 }"; }
step() { # what, command...: says how long it took
  local start=$(now)
  "${@:2}" >"$work/step" 2>&1 || {
    tail -n 30 "$work/step" >&2
    fail "$1, after $(since "$start") s"
  }
  say "$(printf '%6s s  %s' "$(since "$start")" "$1")"
}
until_true() { # seconds, command...: its output is thrown away
  local end=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# Also ends what the commands have started, such as kubectl behind KUBECTL.
kill_tree() { # pid
  local child
  for child in $(pgrep -P "$1"); do kill_tree "$child"; done
  kill "$1" 2>/dev/null || true
}
followers=()
clean() {
  local code=$?
  trap '' INT TERM
  if [ "$code" != 0 ]; then
    say '--- pods and events:' >&2
    kubectl get pods -o wide >&2 || true
    kubectl get events --sort-by .lastTimestamp 2>/dev/null | tail -n 20 >&2 || true
    kubectl logs --selector app.kubernetes.io/name=feed --tail 20 >&2 || true
    tail -n 5 "$work/load.log" >&2 2>/dev/null || true
    mkdir -p "${TMPDIR:-/tmp}/feed-check-$run"
    cp "$work"/*.log "${TMPDIR:-/tmp}/feed-check-$run/" 2>/dev/null || true
    local pod
    for pod in $(kubectl get pods -o 'jsonpath={.items[*].metadata.name}' 2>/dev/null); do
      kubectl logs "$pod" --timestamps >"${TMPDIR:-/tmp}/feed-check-$run/$pod.log" 2>/dev/null || true
    done
    say "--- all logs: ${TMPDIR:-/tmp}/feed-check-$run" >&2
  fi
  local follower
  for follower in "${followers[@]}"; do kill_tree "$follower"; done
  helm uninstall feed --wait >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --wait --timeout 120s >/dev/null 2>&1 || say "namespace $namespace could not be removed" >&2
  if [ -n "${LOCAL_VOLUMES:-}" ]; then
    kubectl delete persistentvolume --selector "feed-check=$run" >/dev/null 2>&1 || true
    kubectl delete storageclass "feed-check-$run" >/dev/null 2>&1 || true
    on_node sh -c "umount '$LOCAL_VOLUMES/0'; rm -rf '$LOCAL_VOLUMES'" >/dev/null 2>&1 || true
  fi
  rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# --- Volumes of a cluster that makes none.

make_volumes() { # how many
  on_node sh -c "mkdir -p '$LOCAL_VOLUMES'/0 && mount -t tmpfs -o size=512m feed-check '$LOCAL_VOLUMES'/0"
  local host
  host=$(kubectl get nodes -o 'jsonpath={.items[0].metadata.labels.kubernetes\.io/hostname}')
  {
    cat <<YAML
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: feed-check-$run }
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
    for i in $(seq 0 "$1"); do
      on_node mkdir -p "$LOCAL_VOLUMES/$i"
      # Only Feed's claim asks for 400Mi, and only the first volume has no more.
      cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: feed-check-$run-$i, labels: { feed-check: '$run' } }
spec:
  capacity: { storage: $([ "$i" = 0 ] && echo 400Mi || echo 1Gi) }
  accessModes: [ReadWriteOnce]
  storageClassName: feed-check-$run
  local: { path: $LOCAL_VOLUMES/$i }
  nodeAffinity:
    required:
      nodeSelectorTerms: [{ matchExpressions: [{ key: kubernetes.io/hostname, operator: In, values: [$host] }] }]
YAML
    done
  } | kubectl apply -f -
}

# --- The load.

start_load() {
  kubectl create configmap load --from-file="$PWD/scripts/kubernetes/load.ts"
  kubectl apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: { name: load }
spec:
  restartPolicy: Never
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: RuntimeDefault } }
  containers:
    - name: load
      image: localhost/feed:check
      imagePullPolicy: IfNotPresent
      # Where @feed-events/client is found.
      command: [node, /app/load/load.ts]
      env:
        - { name: FEED_ADDRESS, value: 'feed.$namespace.svc:50051' }
        - { name: RUN, value: '$run.$1' }
        - { name: UPLOADS, value: '$UPLOADS' }
        - { name: WATCHES, value: '$WATCHES' }
      securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
      volumeMounts: [{ name: load, mountPath: /app/load }]
  volumes: [{ name: load, configMap: { name: load } }]
YAML
  kubectl wait --for=condition=Ready pod/load --timeout 60s
  : >"$work/load.log"
  kubectl logs load --follow >"$work/load.log" 2>/dev/null &
  followers+=($!)
  until_true 120 grep -q ready "$work/load.log"
}
signal_load() { kubectl exec load -- sh -c "kill -$1 1"; }
# The load's next report, as a line of JSON.
report() {
  local lines
  lines=$(wc -l <"$work/load.log")
  signal_load USR2
  until_true 30 test_more_lines "$lines" || fail 'the load gives no report'
  tail -n 1 "$work/load.log"
}
test_more_lines() { [ "$(wc -l <"$work/load.log")" -gt "$1" ]; }
# Reports until nothing is broken any more; prints the worst of each figure.
settle() { # seconds
  local end=$((SECONDS + $1))
  : >"$work/reports"
  for (( ; ; )); do
    report >>"$work/reports"
    if [ "$(wc -l <"$work/reports")" -gt 2 ] && "$node" -e '
      const last = JSON.parse(process.argv[1].trim().split("\n").at(-1));
      process.exit(last.silence < 1 && last.unacknowledged < 1 && last.refused < 1 && last.reconnects === 0 ? 0 : 1);
    ' "$(cat "$work/reports")"; then break; fi
    [ "$SECONDS" -lt "$end" ] || fail "the load has not settled within $1 s: $(tail -n 1 "$work/reports")"
    sleep 1
  done
  "$node" -e '
    const all = process.argv[1].trim().split("\n").map(JSON.parse);
    const most = (name) => Math.max(...all.map((one) => one[name])).toFixed(1);
    const worst = all.toSorted((a, b) => b.refused - a.refused)[0];
    console.log(
      `without service ${most("refused")} s, without an acknowledgement ${most("unacknowledged")} s, ` +
        `longest silence of a watch ${most("silence")} s`,
    );
    if (worst.refusedFrom) console.error(`${worst.refusedFrom} ${worst.refusedTo}`);
  ' "$(cat "$work/reports")" 2>"$work/gap"
}
# Prints the events around the time without service, each line with its seconds after the beginning of that.
timeline() {
  [ -s "$work/gap" ] || return 0
  "$node" -e '
    const [from, to] = process.argv[1].trim().split(" ").map((time) => Date.parse(time));
    const seen = new Set();
    const lines = process.argv[2].split("\n").map((line) => line.split(/ (.*)/s)).filter(([at]) => {
      const time = Date.parse(at);
      return time > from - 3000 && time < to + 500;
    });
    lines.push([new Date(from).toISOString(), "the last new connection is served"], [new Date(to).toISOString(), "a new connection is served again"]);
    for (const [at, text] of lines.toSorted(([a], [b]) => Date.parse(a) - Date.parse(b))) {
      if (seen.has(text)) continue;
      seen.add(text);
      console.log(`            ${((Date.parse(at) - from) / 1000).toFixed(2).padStart(6)} s  ${text.slice(0, 130)}`);
    }
  ' "$(cat "$work/gap")" "$(
    cat "$work/pods.log"
    sed -n 's/ {"level".*"msg":"\(draining[^"]*\|gRPC listens[^"]*\).*/ log: \1/p' "$work/feed.log"
  )"
}
# Runs a command under the load, and says how long it took and what the load saw.
under_load() { # what, command...
  local start=$(now) seen took
  report >/dev/null
  "${@:2}" >"$work/step" 2>&1 || {
    tail -n 30 "$work/step" >&2
    fail "$1"
  }
  took=$(since "$start")
  sleep 1
  seen=$(settle 120) || exit 1
  say "$(printf '%6s s  %s: %s' "$took" "$1" "$seen")"
}
end_load() {
  signal_load HUP
  until_true 120 grep -q deliveries "$work/load.log" || fail 'the load did not end'
  local outcome
  outcome=$(tail -n 1 "$work/load.log")
  say "          the load: $outcome"
  [[ $outcome == *'"lost":0,"twice":0,"incomplete":0,"failed":[]'* ]] || fail 'events were lost, came twice, or did not come'
  kubectl delete pod load configmap/load 2>/dev/null || kubectl delete pod/load configmap/load
}
# Times and states of Feed's pods, and their logs, for the timeline.
follow() {
  : >"$work/pods.log"
  : >"$work/feed.log"
  kubectl get pods --selector app.kubernetes.io/name=feed --watch --no-headers \
    -o 'custom-columns=A:.metadata.name,D:.metadata.deletionTimestamp,P:.status.phase,S:.status.containerStatuses[*].started,R:.status.containerStatuses[*].ready,N:.status.containerStatuses[*].restartCount' 2>/dev/null > >(
    while read -r name deleted phase started ready restarts; do
      echo "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ) pod $name: $([ "$deleted" = '<none>' ] || echo 'ending, ')$phase, started $started, ready $ready, restarts $restarts"
    done >>"$work/pods.log"
  ) &
  followers+=($!)
  while [ -d "$work" ]; do
    kubectl logs --selector app.kubernetes.io/name=feed --max-log-requests 10 --follow --timestamps --since 2s 2>/dev/null || true
    sleep 0.1
  done >>"$work/feed.log" &
  followers+=($!)
}

upgrade() { # arguments of helm
  helm upgrade feed "$chart" --reuse-values --wait --timeout 3m "$@"
}
ready() { kubectl wait --for=condition=Ready pod --selector app.kubernetes.io/name=feed,app.kubernetes.io/instance=feed --timeout 120s; }
restarts() { kubectl get pod feed-0 -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }
restarted() { [ "$(restarts 2>/dev/null)" -gt "$1" ]; }
# A process of Feed on the node; the load is another program.
main_pid() { on_node pgrep -f /app/dist/main.js | head -n 1; }
signal_feed() { # signal: waits until kubelet has started the container again
  local before pid
  before=$(restarts)
  pid=$(main_pid)
  on_node kill "-$1" "$pid"
  until_true 120 restarted "$before"
  ready
}
# Fills the memory of the container by many processes, each smaller than Feed: the kernel ends the largest one.
exhaust_memory() {
  local before
  before=$(restarts)
  kubectl exec feed-0 -- sh -c 'for i in $(seq 40); do (head -c 50000000 /dev/zero | tail -c 50000000 | sleep 20) & done; wait' || true
  until_true 60 restarted "$before"
  ready
  [ "$(kubectl get pod feed-0 -o 'jsonpath={.status.containerStatuses[0].lastState.terminated.reason}')" = OOMKilled ]
}
fill_volume() { # for 5 s
  kubectl exec feed-0 -- sh -c 'head -c 1G /dev/zero >/data/filler 2>/dev/null; sleep 5; rm /data/filler'
}
mistype() {
  helm upgrade feed "$chart" --reuse-values --set 'extraEnv[0].name=FEED_RETENTON_MAX_AGE,extraEnv[0].value=1h'
  until_true 60 refuses_to_start
}
refuses_to_start() { kubectl logs feed-0 | grep -q 'FEED_RETENTON_MAX_AGE is not a setting'; }
mend() { upgrade --set-json 'extraEnv=[]'; }
reinstall() {
  helm uninstall feed --wait
  install_one
}

storage=()
install_one() {
  helm install feed "$chart" --wait --timeout 3m "${image[@]}" "${storage[@]}" \
    --set persistence.size=400Mi,config.logFormat=json ${VALUES:-}
}

image=(--set image.repository=localhost/feed,image.tag=check,image.pullPolicy=IfNotPresent)
step 'the image is loaded' $LOAD_IMAGE "$archive"
kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
if [ -n "${LOCAL_VOLUMES:-}" ]; then
  step 'volumes' make_volumes 3
  STORAGE_CLASS=feed-check-$run
fi
[ -z "${STORAGE_CLASS:-}" ] || storage=(--set "persistence.storageClass=$STORAGE_CLASS")

one_process() {
  say "--- one process, $UPLOADS uploads, $WATCHES watches"
  step 'install' install_one
  step 'helm test' helm test feed --timeout 2m
  follow
  step 'the load starts' start_load one
  settle 60 >/dev/null
  local i
  for i in $(seq "$UPGRADES"); do
    under_load "upgrade $i" upgrade --set-string "podAnnotations.run=$i"
    timeline
  done
  if [ -n "${ON_NODE:-}" ]; then
    under_load 'SIGKILL' signal_feed KILL
    under_load 'a frozen process' signal_feed STOP
  else
    say 'left out, because ON_NODE is not set: SIGKILL, a frozen process'
  fi
  under_load 'out of memory' exhaust_memory
  if [ -n "${LOCAL_VOLUMES:-}" ]; then
    under_load 'a full volume, for 5 s' fill_volume
  else
    say 'left out, because the size of the volume is not known to hold (LOCAL_VOLUMES): a full volume'
  fi
  under_load 'a mistyped setting, and its mend' mistype_and_mend
  under_load 'uninstall and install on the same volume' reinstall
  end_load
  step 'uninstall' helm uninstall feed --wait
}
mistype_and_mend() { mistype && mend; }

# --- Three replicas on three NATS servers.

# An image of nothing but the nats-server that the tests use: no registry is needed.
nats_archive() {
  local path layer config dir=$work/nats architecture
  path=$("$node" -e "
    import('$PWD/scripts/nats-server.mjs').then(({ natsServer }) => {
      const found = natsServer();
      if (!found.path) throw new Error(found.missing);
      console.log(found.path);
    })")
  [[ $path = */* ]] || path=$(command -v "$path")
  case $(uname -m) in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=$(uname -m) ;; esac
  mkdir -p "$dir"
  cp "$path" "$dir/nats-server"
  tar -C "$dir" --owner 0 --group 0 -cf "$dir/layer.tar" nats-server
  layer=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
  config='{"architecture":"%s","os":"linux","config":{"Entrypoint":["/nats-server"],"User":"65532:65532"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}'
  # shellcheck disable=SC2059
  printf "$config" "$architecture" "$layer" >"$dir/config.json"
  printf '[{"Config":"config.json","RepoTags":["localhost/nats:check"],"Layers":["layer.tar"]}]' >"$dir/manifest.json"
  tar -C "$dir" -cf "$work/nats.tar" manifest.json config.json layer.tar
  $LOAD_IMAGE "$work/nats.tar"
}
# As the official chart makes them with helm/feed/examples/nats.yaml, without that chart and its images.
install_nats() {
  kubectl apply -f - <<YAML
apiVersion: v1
kind: ConfigMap
metadata: { name: nats }
data:
  nats.conf: |
    port: 4222
    http: 8222
    server_name: \$NAME
    max_payload: 8MB
    jetstream { store_dir: /data, sync_interval: always, max_memory_store: 256MB }
    cluster {
      name: nats
      port: 6222
      routes: [nats://nats-0.nats-headless:6222, nats://nats-1.nats-headless:6222, nats://nats-2.nats-headless:6222]
    }
---
apiVersion: v1
kind: Service
metadata: { name: nats-headless }
spec: { clusterIP: None, publishNotReadyAddresses: true, selector: { app: nats }, ports: [{ port: 4222 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: nats }
spec:
  replicas: 3
  serviceName: nats-headless
  podManagementPolicy: Parallel
  selector: { matchLabels: { app: nats } }
  template:
    metadata: { labels: { app: nats } }
    spec:
      enableServiceLinks: false
      securityContext: { runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: nats
          image: localhost/nats:check
          imagePullPolicy: IfNotPresent
          args: [--config, /etc/nats/nats.conf]
          env: [{ name: NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
          # As the official chart's: the server is up, whatever its streams do.
          startupProbe: { httpGet: { path: '/healthz', port: 8222 }, periodSeconds: 1, failureThreshold: 90 }
          readinessProbe: { httpGet: { path: '/healthz?js-server-only=true', port: 8222 }, periodSeconds: 2 }
          securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
          volumeMounts: [{ name: data, mountPath: /data }, { name: nats, mountPath: /etc/nats }]
      volumes: [{ name: nats, configMap: { name: nats } }]
  volumeClaimTemplates:
    - metadata: { name: data }
      spec:
        accessModes: [ReadWriteOnce]
        ${STORAGE_CLASS:+storageClassName: $STORAGE_CLASS}
        resources: { requests: { storage: 500Mi } }
YAML
  kubectl rollout status statefulset/nats --timeout 3m
}
install_replicas() {
  # shellcheck disable=SC2086
  helm install feed "$chart" --wait --timeout 3m --values "$chart/examples/jetstream.yaml" "${image[@]}" \
    --set config.retentionMaxBytes=300MiB,config.logFormat=json,resources.requests.cpu=100m ${VALUES:-}
}
replicas_ready() { kubectl rollout status deployment/feed --timeout 2m; }
feed_pods() { kubectl get pods --selector app.kubernetes.io/name=feed --field-selector status.phase=Running -o 'jsonpath={.items[*].metadata.name}'; }
evict() { # pod
  kubectl create -f - --raw "/api/v1/namespaces/$namespace/pods/$1/eviction" <<JSON
{ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "$1", "namespace": "$namespace" } }
JSON
  sleep 1
  replicas_ready
}
delete_replica() {
  kubectl delete pod "$(feed_pods | cut -d' ' -f1)"
  replicas_ready
}
delete_nats() { # its number
  kubectl delete pod "nats-$1"
  kubectl rollout status statefulset/nats --timeout 2m
}

three_replicas() {
  local i pod
  say "--- three replicas on three NATS servers, $UPLOADS uploads, $WATCHES watches"
  step 'an image of nats-server' nats_archive
  step 'NATS' install_nats
  step 'install' install_replicas
  step 'helm test' helm test feed --timeout 2m
  follow
  step 'the load starts' start_load replicas
  settle 60 >/dev/null
  for i in $(seq "$UPGRADES"); do
    under_load "rolling upgrade $i" upgrade --set-string "podAnnotations.run=$i"
  done
  for pod in $(feed_pods); do under_load "eviction of $pod" evict "$pod"; done
  under_load 'deletion of a replica' delete_replica
  for i in 0 1 2; do under_load "deletion of nats-$i" delete_nats "$i"; done
  end_load
  step 'uninstall' helm uninstall feed --wait
}

for part in $parts; do
  case $part in
  one) one_process ;;
  replicas) three_replicas ;;
  *) fail "no such part: $part" ;;
  esac
done
say 'Nothing was lost, and nothing came twice.'

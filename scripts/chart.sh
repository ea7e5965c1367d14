#!/usr/bin/env bash
# Does the Helm chart say what it must? Lints it, renders it with a few sets of values, and looks for the lines
# that matter; then gives it values that it must refuse. No cluster is needed or touched.
#
# Needs Go, Node and the Go module proxy: helm is built from source, once (about two minutes), into
# node_modules/.cache. After that it takes a few seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

HELM=v3.22.0
# What a helm of the Go proxy does not know by itself: the Kubernetes version it is made for.
KUBERNETES_MINOR=37

bin=$PWD/node_modules/.cache/helm-$HELM
if [ ! -x "$bin/helm" ]; then
  echo "Building helm $HELM (once, about two minutes) ..."
  flags='-s -w'
  for package in chartutil lint/rules; do
    for part in Major=1 "Minor=$KUBERNETES_MINOR"; do
      flags="$flags -X helm.sh/helm/v3/pkg/$package.k8sVersion$part"
    done
  done
  GOBIN=$bin CGO_ENABLED=0 go install -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$HELM"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rendered=$work/rendered.yaml

failures=0
ok() { echo "ok: $1"; }
fail() { # what, where or how
  echo "FAILED: $1" >&2
  echo "$2" | sed 's/^/  /' >&2
  failures=$((failures + 1))
}

helm() { "$bin/helm" "$@"; }

render() { # description, then arguments of helm template
  values=$1
  if ! helm template demo helm/feed "${@:2}" >"$rendered" 2>"$work/error"; then
    fail "helm/feed does not render with $values" "$(cat "$work/error")"
    exit 1
  fi
}
# Consecutive lines of the rendered chart, whatever their indentation, comments aside.
has() { # what, line...
  local wanted lines
  wanted=$(printf '%s\n' "${@:2}")
  lines=$(sed '/^ *#/d; s/^[ -]*//' "$rendered")
  if [[ $'\n'$lines$'\n' == *$'\n'"$wanted"$'\n'* ]]; then
    ok "$1 ($values)"
  else
    fail "$1: not in what helm/feed renders with $values" "$wanted"
  fi
}
has_not() { # what, text
  local found
  if found=$(grep -nF -- "$2" "$rendered"); then
    fail "$1: helm/feed renders with $values" "$found"
  else
    ok "$1 ($values)"
  fi
}
refuses() { # what, what the message must name, then arguments of helm template
  local message
  if message=$(helm template demo helm/feed "${@:3}" 2>&1 >/dev/null); then
    fail "refuses $1" "helm template ${*:3}: no error"
  elif [[ $message != *"$2"* ]]; then
    fail "refuses $1, naming $2" "$message"
  else
    ok "refuses $1"
  fi
}

if message=$(helm lint --strict --quiet helm/feed 2>&1); then
  ok 'helm lint'
else
  fail 'helm lint' "$message"
fi

version=$(node -p 'require("./package.json").version')
if grep -qx "appVersion: $version" helm/feed/Chart.yaml; then
  ok "appVersion is package.json's version"
else
  fail "appVersion is package.json's version, $version" "$(grep -n appVersion helm/feed/Chart.yaml)"
fi

render 'the defaults'
has 'one replica' 'replicas: 1'
has 'no variables for Services' 'enableServiceLinks: false'
has 'no service account token' 'automountServiceAccountToken: false' 'enableServiceLinks: false'
has 'grace period 0 + 0 + 20 + 5 + 15' 'terminationGracePeriodSeconds: 40'
has_not 'no preStop' 'preStop'
has_not 'no TLS' 'FEED_TLS'
has_not 'no mounted Secret' '/etc/feed'
has_not 'no port for health alone' '50052'
has 'a port for metrics' 'name: FEED_METRICS_ADDRESS' 'value: "0.0.0.0:9464"'
has 'that port on the pod' 'name: metrics' 'containerPort: 9464'
has 'that port on the headless Service' 'name: metrics' 'port: 9464' 'targetPort: metrics'
has_not 'no objects of the Prometheus operator' 'monitoring.coreos.com'
has_not 'no dashboard' 'grafana_dashboard'
has 'not root' 'runAsNonRoot: true' 'runAsUser: 65532'
has 'volume writable for the image user' 'fsGroup: 65532'
has 'seccomp' 'seccompProfile:' 'type: RuntimeDefault'
has 'no privileges' 'allowPrivilegeEscalation: false' 'capabilities:' 'drop:' 'ALL' 'readOnlyRootFilesystem: true'
has 'startup probe, for an hour' 'startupProbe:' 'httpGet:' 'path: /healthz' 'port: http' 'periodSeconds: 2' 'failureThreshold: 1800'
has 'liveness probe' 'livenessProbe:' 'httpGet:' 'path: /healthz' 'port: http'
has 'readiness probe' 'readinessProbe:' 'grpc:' 'port: 50051' 'service: feed.v1.FeedService'
has 'HTTP/2 without TLS on the Service' 'targetPort: grpc' 'appProtocol: kubernetes.io/h2c'
has 'headless Service' 'clusterIP: None'
has 'image by tag' "image: \"feed:$version\""
has 'volume retained' 'whenDeleted: Retain' 'whenScaled: Retain'
has 'volume claim' 'accessModes: [ReadWriteOnce]' 'resources:' 'requests:' 'storage: 10Gi'

render 'persistence off' --set persistence.enabled=false
has 'emptyDir' 'name: data' 'emptyDir: {}'
has_not 'no volume claim' 'volumeClaimTemplates'

digest=sha256:$(printf '%064d' 0)
render 'a registry and a digest' --set image.registry=registry.example.com,image.digest="$digest"
has 'image by digest' "image: \"registry.example.com/feed@$digest\""

for repository in localhost:5000/feed 127.0.0.1:5000/team/feed '[::1]:5000/feed' \
  registry.example.com/team/feed Registry.example.com:443/feed ghcr.io/a-team/feed_x; do
  render "the repository $repository" --set image.repository="$repository"
  has 'image' "image: \"$repository:$version\""
done
render 'a registry with a port' --set image.registry=localhost:5000,image.tag=1.2.3
has 'image' 'image: "localhost:5000/feed:1.2.3"'
render 'a registry with a port and a path' --set image.registry=localhost:5000/team
has 'image' "image: \"localhost:5000/team/feed:$version\""
digest512=sha512:$(printf '%0128d' 0)
render 'a repository with a port, and a digest' --set image.repository=localhost:5000/feed,image.digest="$digest512"
has 'image by digest' "image: \"localhost:5000/feed@$digest512\""

render 'a startup value' --set startup.timeoutSeconds=86401
has 'a longer startup probe' 'periodSeconds: 2' 'failureThreshold: 43201'

render 'drain values' --set drain.preStopSeconds=5,drain.delaySeconds=7,drain.timeoutSeconds=60,drain.spreadSeconds=10
has 'grace period 5 + 7 + 60 + 10 + 15' 'terminationGracePeriodSeconds: 97'
has 'drain delay' 'name: FEED_DRAIN_DELAY' 'value: "7s"'
has 'drain timeout' 'name: FEED_DRAIN_TIMEOUT' 'value: "60s"'
has 'drain spread' 'name: FEED_DRAIN_SPREAD' 'value: "10s"'
has 'preStop' 'preStop:' 'sleep:' 'seconds: 5'

render 'a certificate' --set tls.existingSecret=feed-tls
has 'its files' 'name: FEED_TLS_CERT' 'value: "/etc/feed/tls/tls.crt"' 'name: FEED_TLS_KEY' 'value: "/etc/feed/tls/tls.key"'
has_not 'no authorities of clients' 'FEED_TLS_CLIENT_CA'
has 'the mounted Secret' 'name: tls' 'secret:' 'secretName: feed-tls' 'defaultMode: 0440'
has 'its directory' 'name: tls' 'mountPath: /etc/feed/tls' 'readOnly: true'
has 'a port for probes' 'name: FEED_HEALTH_ADDRESS' 'value: "0.0.0.0:50052"'
has 'that port' 'name: health' 'containerPort: 50052'
has 'the readiness probe on it' 'readinessProbe:' 'grpc:' 'port: 50052' 'service: feed.v1.FeedService'
has 'HTTPS for the liveness probe' 'livenessProbe:' 'httpGet:' 'path: /healthz' 'port: http' 'scheme: HTTPS'
has 'HTTPS for the startup probe' 'startupProbe:' 'httpGet:' 'path: /healthz' 'port: http' 'scheme: HTTPS'
has 'TLS on the Services' 'targetPort: grpc' 'appProtocol: https'
has_not 'no health port on the Services' 'targetPort: health'
has_not 'no HTTP/2 without TLS' 'h2c'

render 'certificates of clients' --set tls.existingSecret=feed-tls,tls.clientCertificates=true,tls.clientCaKey=clients.pem,tls.certKey=server.pem
has 'their authorities' 'name: FEED_TLS_CLIENT_CA' 'value: "/etc/feed/tls/clients.pem"'
has 'the key of the certificate in the Secret' 'name: FEED_TLS_CERT' 'value: "/etc/feed/tls/server.pem"'

render 'a certificate, and persistence off' --set tls.existingSecret=feed-tls,persistence.enabled=false
has 'both volumes' 'volumes:' 'name: data' 'emptyDir: {}' 'name: tls' 'secret:'

# helm prints the notes only where there is a cluster, so a copy of the chart has them as a manifest.
cp -r helm/feed "$work/with-notes"
(
  cd "$work/with-notes/templates"
  { echo '{{- define "notes" }}' && cat NOTES.txt && echo '{{- end }}'; } >_notes.tpl
  echo 'notes: {{ include "notes" . | toJson }}' >notes.yaml
)
notes() { # what, the text, then arguments of helm template
  local text
  text=$(helm template demo "$work/with-notes" "${@:3}" 2>&1 | grep '^notes:' || true)
  if [[ $text == *"$2"* ]]; then ok "$1 ($values)"; else fail "$1: not in the notes" "$text"; fi
}
values='the notes'
notes 'they warn of missing TLS' 'It has NO TLS'
notes 'they say how to call it' 'grpcurl -plaintext -d'
notes 'they say how to call it with TLS' 'grpcurl -cacert ca.crt -authority demo-feed.default.svc -cert client.crt -key client.key -d' \
  --set tls.existingSecret=feed-tls,tls.clientCertificates=true

cat >"$work/all.yaml" <<'VALUES'
config:
  engine: lmdb
  durability: fsync
  maxEventBytes: 2MiB
  dedupWindow: 5m
  dedupIds: "5000"
  retentionMaxAge: 168h
  retentionMaxBytes: 7GiB
  retentionTopicMaxBytes: 1GiB
  quotaBytes: 0B
  natsServers: nats://nats-0:4222,nats://nats-1:4222
  natsStream: FEED
  natsReplicas: "3"
  natsCredentials: /etc/nats/feed.creds
  natsTlsCa: /etc/nats/ca.pem
  natsTlsCert: /etc/nats/feed.pem
  natsTlsKey: /etc/nats/feed.key
  natsMonitorUrls: http://nats-0:8222,http://nats-1:8222
  natsSystemCredentials: /etc/nats/system.creds
  natsFlush: observed
  natsPatience: 30s
  jwtPublicKey: /etc/feed/keys.pem
  jwtJwksUrl: https://issuer.example.com/jwks
  jwtJwksCa: /etc/feed/issuer-ca.pem
  jwtJwksToken: /etc/feed/issuer-token
  jwtIssuer: https://issuer.example.com
  jwtAudience: feed
  jwtAlgorithms: RS256,ES256
  jwtClockTolerance: 5s
  policyFile: /etc/feed/policy.yaml
  metricsTopics: orders,invoices
  streamWindow: 2MiB
  sessionWindow: 32MiB
  receiveBytes: 512MiB
  keepaliveTime: 45s
  keepaliveTimeout: 15s
  insecure: allow
  resetBurst: "5000"
  maxWatches: "500"
  maxWatchesPerConnection: "500"
  maxWatchesPerPrincipal: "500"
  maxUploads: "500"
  maxUploadsPerConnection: "500"
  maxUploadsPerPrincipal: "500"
  maxChats: "500"
  maxChatsPerConnection: "500"
  maxChatsPerPrincipal: "500"
  maxRooms: "500"
  maxConnections: "500"
  uploadEventsPerSecond: "500"
  uploadBytesPerSecond: 10MiB
  maxConnectionAge: 10m
  maxConnectionAgeGrace: 1m
  otlpEndpoint: http://collector:4318
  tracesPercent: "10"
  logLevel: debug
  logFormat: json
extraEnv:
  - name: TZ
    value: UTC
existingSecret: feed-secret
envFrom:
  - configMapRef:
      name: feed-settings
VALUES
render 'all of config' --values "$work/all.yaml"
has 'config' 'name: FEED_MAX_EVENT_BYTES' 'value: "2MiB"'
has 'extraEnv' 'name: TZ' 'value: UTC'
has 'existingSecret and envFrom' 'envFrom:' 'secretRef:' 'name: feed-secret' 'configMapRef:' 'name: feed-settings'
# The service does not start with a FEED_ variable that it does not know.
unknown=$(comm -23 <(sed -n 's/^ *- name: \(FEED_.*\)/\1/p' "$rendered" | sort) \
  <(sed -n 's/^  \(FEED_[A-Z_]*\):.*/\1/p' src/config/config.ts | sort))
if [ -z "$unknown" ]; then
  ok "settings of the service, each FEED_ variable ($values)"
else
  fail 'not settings of the service (src/config/config.ts)' "$unknown"
fi
# So that the above sees a setting added to the chart.
unseen=$(comm -23 <(sed -n '/^config:/,/^[^ ]/s/^  \([a-zA-Z]*\):.*/\1/p' helm/feed/values.yaml | sort) \
  <(sed -n 's/^  \([a-zA-Z]*\):.*/\1/p' "$work/all.yaml" | sort))
if [ -z "$unseen" ]; then
  ok 'all of config is checked'
else
  fail 'in config of helm/feed/values.yaml, but not in all.yaml of scripts/chart.sh: add it there' "$unseen"
fi

render 'a policy and keys in ConfigMaps' \
  --set auth.policy.existingConfigMap=feed-policy,auth.publicKeys.existingConfigMap=feed-keys
has 'the policy' 'name: FEED_POLICY_FILE' 'value: "/etc/feed/policy/policy.yaml"'
has 'the keys' 'name: FEED_JWT_PUBLIC_KEY' 'value: "/etc/feed/keys/keys"'
has 'their mounts' 'name: keys' 'mountPath: /etc/feed/keys' 'readOnly: true' 'name: policy' 'mountPath: /etc/feed/policy' 'readOnly: true'
has 'their volumes' 'volumes:' 'name: keys' 'configMap:' 'name: feed-keys' 'name: policy' 'configMap:' 'name: feed-policy'
render 'a policy in a Secret, and no volume' --set auth.policy.existingSecret=feed-policy,persistence.enabled=false
has 'its volume' 'volumes:' 'name: data' 'emptyDir: {}' 'name: policy' 'secret:' 'secretName: feed-policy'
render 'tokens of Kubernetes' \
  --set auth.kubernetesTokens=true,config.jwtIssuer=https://kubernetes.default.svc.cluster.local,config.jwtAudience=feed
has 'the keys of the cluster' 'name: FEED_JWT_JWKS_URL' 'value: "https://kubernetes.default.svc/openid/v1/jwks"'
has 'its authority' 'name: FEED_JWT_JWKS_CA' 'value: "/var/run/secrets/feed/ca.crt"'
has 'a token to read them' 'name: issuer' 'projected:' 'sources:' 'serviceAccountToken:' 'path: token'
has 'no other token' 'automountServiceAccountToken: false' 'enableServiceLinks: false'

render 'all of monitoring' --set serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true \
  --set serviceMonitor.additionalLabels.release=prometheus,prometheusRule.additionalLabels.release=prometheus
has 'a ServiceMonitor of the pods' 'kind: ServiceMonitor' 'metadata:' 'name: demo-feed'
has 'its endpoints' 'endpoints:' 'port: metrics' 'interval: 15s'
has 'the alerts' 'kind: PrometheusRule' 'metadata:' 'name: demo-feed'
has 'their annotations as they are' "summary: '{{ \$labels.instance }} takes no new work, and has not ended'"
has 'the dashboard' 'data:' 'feed.json: |' '{'
has 'labels for those who look for them' 'release: prometheus'
has 'a label for the sidecar' 'grafana_dashboard: "1"'

refuses 'two policies' 'not both' --set auth.policy.existingSecret=a,auth.policy.existingConfigMap=b
refuses 'a number of replicas' replicas --set replicas=2
refuses 'an unknown setting' retention --set config.retention=1h
refuses 'a string for a number' timeoutSeconds --set-string drain.timeoutSeconds=20
refuses 'a start that may take no time' timeoutSeconds --set startup.timeoutSeconds=0
refuses 'a duration for a number' delaySeconds --set drain.delaySeconds=5s
refuses 'a size without a unit' maxEventBytes --set-string config.maxEventBytes=1048576
refuses 'certificates of clients without TLS' existingSecret --set tls.clientCertificates=true
refuses 'a setting that follows from tls' FEED_TLS_CERT \
  --set 'extraEnv[0].name=FEED_TLS_CERT,extraEnv[0].value=/tls.pem'
refuses 'a digest that is none' digest --set image.digest=latest
refuses 'a tag in the repository' repository --set image.repository=localhost:5000/feed:1.2.3
refuses 'a digest in the repository' repository --set image.repository=feed@"$digest"
refuses 'a repository in capitals' repository --set image.repository=Feed
refuses 'a repository that is a URL' repository --set image.repository=https://localhost:5000/feed
refuses 'a registry that is a URL' registry --set image.registry=https://localhost:5000
refuses 'two registries' repository --set image.registry=example.com,image.repository=localhost:5000/feed
refuses 'a drain timeout that the grace period would not know of' FEED_DRAIN_TIMEOUT \
  --set 'extraEnv[0].name=FEED_DRAIN_TIMEOUT,extraEnv[0].value=5m'

if [ "$failures" -gt 0 ]; then
  echo "$failures of the chart's checks failed." >&2
  exit 1
fi
echo 'The chart is as it must be.'

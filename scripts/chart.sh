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
has 'not root' 'runAsNonRoot: true' 'runAsUser: 65532'
has 'volume writable for the image user' 'fsGroup: 65532'
has 'seccomp' 'seccompProfile:' 'type: RuntimeDefault'
has 'no privileges' 'allowPrivilegeEscalation: false' 'capabilities:' 'drop:' 'ALL' 'readOnlyRootFilesystem: true'
has 'startup probe, for an hour' 'startupProbe:' 'httpGet:' 'path: /healthz' 'port: http' 'periodSeconds: 1' 'timeoutSeconds: 3' 'failureThreshold: 3600'
has 'liveness probe' 'livenessProbe:' 'httpGet:' 'path: /healthz' 'port: http'
has 'a process that hangs is replaced within 30 s' 'failureThreshold: 4' 'periodSeconds: 5' 'terminationGracePeriodSeconds: 3' 'timeoutSeconds: 3'
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
has 'a longer startup probe' 'periodSeconds: 1' 'timeoutSeconds: 3' 'failureThreshold: 86401'

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
notes_with() { # arguments of helm template
  helm template demo "$work/with-notes" "$@" 2>&1 | grep '^notes:' || true
}
notes() { # what, the text, then arguments of helm template
  local text
  text=$(notes_with "${@:3}")
  if [[ $text == *"$2"* ]]; then ok "$1 ($values)"; else fail "$1: not in the notes" "$text"; fi
}
notes_lack() { # what, a text that is not there, then arguments of helm template
  local text
  text=$(notes_with "${@:3}")
  if [[ $text == notes:* && $text != *"$2"* ]]; then ok "$1 ($values)"; else fail "$1: in the notes" "$text"; fi
}
values='the notes'
notes 'they warn of missing TLS' 'It has NO TLS'
notes 'they say how to call it' 'grpcurl -plaintext -d'
notes 'they say how to call it with TLS' 'grpcurl -cacert ca.crt -authority demo-feed.default.svc -cert client.crt -key client.key -d' \
  --set tls.existingSecret=feed-tls,tls.clientCertificates=true

notes 'they show a token of the cluster' 'TOKEN=$(kubectl --namespace default create token default --audience feed)' \
  --set auth.kubernetesTokens=true,config.jwtIssuer=https://kubernetes.default.svc,config.jwtAudience=feed
notes 'they send it' 'grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d' \
  --set auth.publicKeys.existingSecret=feed-keys,config.jwtIssuer=https://issuer.example.com,config.jwtAudience=feed
notes 'they name the issuer' 'a token of https://issuer.example.com for feed' \
  --set auth.publicKeys.existingSecret=feed-keys,config.jwtIssuer=https://issuer.example.com,config.jwtAudience=feed
notes 'they speak of the policy' 'The policy has to let the caller watch' \
  --set tls.existingSecret=feed-tls,tls.clientCertificates=true,auth.policy.existingConfigMap=feed-policy
notes 'they wait for the StatefulSet' 'rollout status statefulset/demo-feed'
notes 'they wait for the Deployment of several replicas' 'rollout status deployment/demo-feed' --values helm/feed/examples/jetstream.yaml
notes 'they say that an emptyDir keeps nothing' 'events are lost when the pod goes' --set persistence.enabled=false
notes_lack 'they do not say so of replicas, which have no volume' 'events are lost' \
  --values helm/feed/examples/jetstream.yaml --set persistence.enabled=false

cat >"$work/all.yaml" <<'VALUES'
config:
  engine: jetstream
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
  httpOrigins: https://shop.example.com,http://localhost:5173
  console: 'off'
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
  maxSubscriptions: "500"
  maxTopics: "500"
  maxConnections: "500"
  maxMetadataBytes: 32KiB
  unstoredBytesPerUpload: 2MiB
  unstoredBytes: 32MiB
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
# Not the pod of helm test, which has variables of the client.
render 'all of config' --skip-tests --values "$work/all.yaml"
has 'config' 'name: FEED_MAX_EVENT_BYTES' 'value: "2MiB"'
has 'extraEnv' 'name: TZ' 'value: UTC'
has 'existingSecret and envFrom' 'envFrom:' 'secretRef:' 'name: feed-secret' 'configMapRef:' 'name: feed-settings'
# The service does not start with a FEED_ variable that it does not know.
unknown=$(comm -23 <(sed -n 's/^ *- name: \(FEED_.*\)/\1/p' "$rendered" | sort) \
  <(sed -n 's/^  \(FEED_[A-Z_]*\):.*/\1/p' src/config/settings.ts | sort))
if [ -z "$unknown" ]; then
  ok "settings of the service, each FEED_ variable ($values)"
else
  fail 'not settings of the service (src/config/settings.ts)' "$unknown"
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

render 'several replicas' --values helm/feed/examples/jetstream.yaml
has 'a Deployment' 'kind: Deployment' 'metadata:' 'name: demo-feed'
has_not 'no StatefulSet' 'kind: StatefulSet'
has_not 'no volume' 'volumes:'
has_not 'no data directory' FEED_DATA_DIR
has 'as many as it says' 'replicas: 3'
has 'a new one before an old one ends' 'maxSurge: 1' 'maxUnavailable: 0'
has 'time for load balancers' 'name: FEED_DRAIN_DELAY' 'value: "5s"'
has 'grace period 0 + 5 + 20 + 5 + 15' 'terminationGracePeriodSeconds: 45'
has 'spread over nodes' 'topologyKey: kubernetes.io/hostname' 'whenUnsatisfiable: ScheduleAnyway'
has 'a budget of one' 'kind: PodDisruptionBudget' 'metadata:' 'name: demo-feed'
render 'several replicas, secured' --values helm/feed/examples/jetstream.yaml --values helm/feed/examples/secured.yaml
has 'TLS' 'name: FEED_TLS_CERT' 'value: "/etc/feed/tls/tls.crt"'
has 'tokens' 'name: FEED_JWT_JWKS_URL' 'value: "https://kubernetes.default.svc/openid/v1/jwks"'
has 'the policy' 'name: FEED_POLICY_FILE' 'value: "/etc/feed/policy/policy.yaml"'
has 'a ServiceMonitor' 'kind: ServiceMonitor'
has 'alerts' 'kind: PrometheusRule'
render 'Secrets of NATS' --values helm/feed/examples/jetstream.yaml \
  --set nats.credentials.existingSecret=feed-creds,nats.systemCredentials.existingSecret=system \
  --set nats.tls.existingSecret=nats-tls,nats.tls.clientCertificate=true
has 'its creds' 'name: FEED_NATS_CREDENTIALS' 'value: "/etc/feed/nats-credentials/feed.creds"'
has 'those of the system account' 'name: FEED_NATS_SYSTEM_CREDENTIALS' 'value: "/etc/feed/nats-system/system.creds"'
has 'its authority' 'name: FEED_NATS_TLS_CA' 'value: "/etc/feed/nats-tls/ca.crt"' 'name: FEED_NATS_TLS_CERT' 'value: "/etc/feed/nats-tls/tls.crt"'
has 'their volumes' 'name: nats-system' 'secret:' 'secretName: system' 'defaultMode: 0440' 'name: nats-tls' 'secret:' 'secretName: nats-tls'
render 'an HPA' --values helm/feed/examples/jetstream.yaml --set autoscaling.enabled=true
has_not 'no number of replicas' 'replicas: 3'
has 'its target' 'scaleTargetRef:' 'apiVersion: apps/v1' 'kind: Deployment' 'name: demo-feed' 'minReplicas: 2' 'maxReplicas: 6'
render 'a NetworkPolicy' --set networkPolicy.enabled=true --set 'networkPolicy.grpcFrom[0].podSelector.matchLabels.app=x'
has 'default deny' 'policyTypes: [Ingress, Egress]'
has 'its clients, and helm test' 'ports:' 'port: grpc' 'from:' 'podSelector:' 'matchLabels:' 'app: x' 'podSelector:' 'matchLabels:' 'app.kubernetes.io/name: feed-test'
has_not 'no way to NATS' 'port: 4222'
render 'objects of Prometheus and Grafana' --set serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true
has 'a ServiceMonitor' 'endpoints:' 'port: metrics' 'path: /metrics'
has 'alert rules' 'groups:' 'name: feed'
has 'their annotations as they are' "summary: '{{ \$labels.instance }} takes no new work, and has not ended'"
has 'a dashboard' 'feed.json: |'
render 'a claim that is there' --set persistence.existingClaim=events
has 'its volume' 'name: data' 'persistentVolumeClaim:' 'claimName: events'
has_not 'no other' 'volumeClaimTemplates'

refuses 'two policies' 'not both' --set auth.policy.existingSecret=a,auth.policy.existingConfigMap=b
refuses 'replicas of one process' config.engine=jetstream --set replicaCount=2
refuses 'an HPA of one process' config.engine=jetstream --set autoscaling.enabled=true
refuses 'replicas without NATS' config.natsServers --set config.engine=jetstream
refuses 'NATS without replicas' config.engine=jetstream --set config.natsServers=nats://nats:4222
refuses 'a full name that begins with a digit' fullnameOverride --set fullnameOverride=1feed
refuses 'one port for both' httpPort --set service.grpcPort=8080
refuses 'claims of devices' claims --set 'resources.claims[0].name=gpu'
refuses 'a quantity that is none' memory --set resources.limits.memory=1GB
refuses 'a quantity below nothing' cpu --set-string resources.requests.cpu=-1
refuses 'a request above its limit' 'above its limit' --set resources.requests.memory=2Gi
refuses 'a request above its limit in another unit' 'above its limit' --set resources.limits.cpu=200m
refuses 'a volume of nothing' size --set persistence.size=0Gi
refuses 'a repository that ends in a slash' repository --set image.repository=feed/
refuses 'a label that the Service finds pods by' nameOverride --set podLabels."app\.kubernetes\.io/name"=x
refuses 'a label that is none' podLabels --set podLabels.team='the events'
refuses 'a node port of a ClusterIP' grpcNodePort --set service.grpcNodePort=30001
refuses 'two values of one variable' extraEnv --set 'extraEnv[0].name=A,extraEnv[0].value=b,extraEnv[0].valueFrom.fieldRef.fieldPath=c'
refuses 'two volumes of one name' 'called data' --set 'extraVolumes[0].name=data,extraVolumes[0].emptyDir.medium=Memory'
refuses 'a mount of no volume' 'no volume called x' --set 'extraVolumeMounts[0].name=x,extraVolumeMounts[0].mountPath=/x'
refuses 'two credentials of NATS' nats.credentials --set nats.credentials.existingSecret=a,config.natsCredentials=/b
refuses 'a percentage of no request' resources.requests.cpu --values helm/feed/examples/jetstream.yaml \
  --set autoscaling.enabled=true,resources.requests.cpu=null
refuses 'more replicas at least than at most' minReplicas --values helm/feed/examples/jetstream.yaml \
  --set autoscaling.minReplicas=9
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

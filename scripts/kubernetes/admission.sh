#!/usr/bin/env bash
# Does a real API server take what the chart renders? Renders it for both shapes with each option of the matrix below by itself, and
# with all of them together, and gives each to a server-side dry-run with strict validation. Nothing is left on the cluster but
# the two CRDs of the Prometheus operator, which it installs where they are missing.
#
#   scripts/kubernetes/admission.sh
#
#   KUBECTL, HELM   the commands, with the cluster to use: `kubectl` and `helm`, which use KUBECONFIG
#
# Needs Go and its module proxy, for the CRDs.
set -euo pipefail
cd "$(dirname "$0")/../.."

OPERATOR=v0.85.0

kubectl() { ${KUBECTL:-kubectl} "$@"; }
helm() { ${HELM:-helm} "$@"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

crds=$(go mod download -json "github.com/prometheus-operator/prometheus-operator@$OPERATOR" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
for kind in servicemonitors prometheusrules; do
  kubectl get crd "$kind.monitoring.coreos.com" >/dev/null 2>&1 ||
    kubectl create -f "$crds/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml"
done
kubectl wait --for condition=Established crd/servicemonitors.monitoring.coreos.com crd/prometheusrules.monitoring.coreos.com

# One document for each option, with its name as a comment in its first line.
cat >"$work/both" <<'YAML'
# an image by digest, with a secret to pull it
image: { registry: 'localhost:5000', digest: 'sha256:0000000000000000000000000000000000000000000000000000000000000000' }
imagePullSecrets: [{ name: pull }]
---
# names
nameOverride: events
fullnameOverride: a-name-of-fifty-two-characters-which-is-the-most-ok
---
# labels and annotations
commonLabels: { team: events }
commonAnnotations: { example.com/owner: 'the events team' }
podLabels: { sidecar.istio.io/inject: 'true' }
podAnnotations: { example.com/run: '1' }
---
# TLS
tls: { existingSecret: feed-tls }
---
# certificates of clients
tls: { existingSecret: feed-tls, clientCertificates: true }
test: { tls: { existingSecret: client-tls } }
---
# tokens of Kubernetes, and a policy
auth: { kubernetesTokens: true, policy: { existingConfigMap: policy } }
config: { jwtIssuer: 'https://kubernetes.default.svc', jwtAudience: feed }
---
# keys and a policy in Secrets
auth: { publicKeys: { existingSecret: keys }, policy: { existingSecret: policy } }
---
# drain and start
drain: { preStopSeconds: 5, delaySeconds: 10, timeoutSeconds: 0, spreadSeconds: 600 }
startup: { timeoutSeconds: 604800 }
---
# probes
startupProbe: { periodSeconds: 5, timeoutSeconds: 1, initialDelaySeconds: 1 }
livenessProbe: { periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6, successThreshold: 1, terminationGracePeriodSeconds: 1 }
readinessProbe: { periodSeconds: 1, successThreshold: 2 }
---
# IPv6
listenHost: '[::]'
---
# environment
extraEnv:
  - { name: TZ, value: UTC }
  - { name: POD, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  - { name: CPU, valueFrom: { resourceFieldRef: { resource: requests.cpu, divisor: 1m } } }
  - { name: SECRET, valueFrom: { secretKeyRef: { name: a, key: b, optional: true } } }
envFrom: [{ prefix: A_, configMapRef: { name: a } }, { secretRef: { name: b, optional: true } }]
existingSecret: settings
---
# volumes and containers
extraVolumes: [{ name: scratch, emptyDir: { medium: Memory } }]
extraVolumeMounts: [{ name: scratch, mountPath: /scratch, subPath: a/b }]
extraContainers: [{ name: sidecar, image: busybox, env: [{ name: A, value: b }] }]
initContainers: [{ name: before, image: busybox }]
---
# a NodePort
service: { type: NodePort, externalTrafficPolicy: Cluster }
---
# a LoadBalancer
service:
  type: LoadBalancer
  grpcPort: 443
  httpPort: 80
  grpcNodePort: 30001
  httpNodePort: 30002
  externalTrafficPolicy: Local
  loadBalancerClass: example.com/internal
  loadBalancerSourceRanges: [10.0.0.0/8]
  annotations: { example.com/lb: internal }
  labels: { exposed: 'true' }
---
# a service account that is there
serviceAccount: { create: false, name: other }
---
# a service account with annotations
serviceAccount: { annotations: { example.com/role: feed } }
---
# no resources
resources: { requests: null, limits: null }
---
# resources
resources:
  requests: { cpu: 0.5, memory: 1e9, ephemeral-storage: 1Gi, example.com/device: 1 }
  limits: { cpu: '2', memory: 1.5Gi, ephemeral-storage: 2Gi, example.com/device: 1 }
---
# security contexts
podSecurityContext:
  supplementalGroups: [1000]
  fsGroupChangePolicy: Always
  seccompProfile: { type: Localhost, localhostProfile: feed.json }
  appArmorProfile: { type: RuntimeDefault }
  seLinuxOptions: { level: 's0:c123,c456' }
  sysctls: [{ name: net.ipv4.tcp_keepalive_time, value: '60' }]
securityContext: { privileged: false, runAsNonRoot: true, capabilities: { drop: [ALL], add: [NET_BIND_SERVICE] } }
---
# scheduling
priorityClassName: system-cluster-critical
nodeSelector: { kubernetes.io/os: linux }
tolerations:
  - { key: dedicated, operator: Equal, value: feed, effect: NoSchedule }
  - { operator: Exists, effect: NoExecute, tolerationSeconds: 60 }
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - { topologyKey: kubernetes.io/hostname, labelSelector: { matchLabels: { app.kubernetes.io/name: feed } } }
topologySpreadConstraints:
  - { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2, matchLabelKeys: [pod-template-hash] }
---
# a disruption budget
podDisruptionBudget: { enabled: true, maxUnavailable: 50% }
---
# a disruption budget by what is there
podDisruptionBudget: { enabled: true, minAvailable: 1 }
---
# a NetworkPolicy
networkPolicy: { enabled: true }
---
# a NetworkPolicy that says who
networkPolicy:
  enabled: true
  grpcFrom: [{ podSelector: { matchLabels: { app: orders } }, namespaceSelector: {} }]
  httpFrom: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] } }]
  metricsFrom: [{ namespaceSelector: { matchExpressions: [{ key: monitoring, operator: Exists }] } }]
  dnsTo: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: kube-system } } }]
  natsTo: [{ podSelector: { matchLabels: { app.kubernetes.io/name: nats } } }]
  extraIngress: [{ ports: [{ port: grpc, protocol: TCP }] }]
  extraEgress: [{ to: [{ ipBlock: { cidr: '2001:db8::/32' } }], ports: [{ port: 4317, endPort: 4318 }] }]
---
# monitoring
serviceMonitor:
  enabled: true
  interval: 1m
  scrapeTimeout: 30s
  additionalLabels: { release: prometheus }
  relabelings: [{ sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node }]
  metricRelabelings: [{ action: drop, sourceLabels: [__name__], regex: nodejs_.* }]
prometheusRule: { enabled: true, additionalLabels: { release: prometheus }, extraGroups: [{ name: more, rules: [{ record: a, expr: '1' }] }] }
dashboard: { enabled: true, annotations: { grafana_folder: Feed } }
YAML
cat >"$work/one" <<'YAML'
# no volume
persistence: { enabled: false }
---
# a claim that is there
persistence: { existingClaim: events }
---
# a volume for one pod
persistence: { accessMode: ReadWriteOncePod, storageClass: fast, size: 1Ti, annotations: { example.com/backup: daily } }
---
# an update strategy
updateStrategy: { type: OnDelete }
YAML
cat >"$work/replicas" <<'YAML'
# an HPA
autoscaling: { enabled: true, minReplicas: 3, maxReplicas: 3 }
---
# an HPA by more
autoscaling:
  enabled: true
  targetMemoryUtilizationPercentage: 80
  metrics: [{ type: Pods, pods: { metric: { name: feed_open_streams }, target: { type: AverageValue, averageValue: '1000' } } }]
  behavior: { scaleDown: { stabilizationWindowSeconds: 600 } }
---
# Secrets of NATS
nats:
  credentials: { existingSecret: creds }
  systemCredentials: { existingSecret: system }
  tls: { existingSecret: nats-tls, clientCertificate: true }
---
# an update strategy
updateStrategy: { type: RollingUpdate, rollingUpdate: { maxUnavailable: 1, maxSurge: 25% } }
YAML

tried=0
failures=0
# Prints what was not taken, and why.
admit() { # what, arguments of helm template
  local problem
  tried=$((tried + 1))
  if problem=$(helm template feed helm/feed "${@:2}" 2>&1 >"$work/rendered") &&
    problem=$(kubectl apply --server-side --dry-run=server --validate=strict -f - <"$work/rendered" 2>&1 >/dev/null) &&
    [ -z "$problem" ]; then
    return
  fi
  failures=$((failures + 1))
  printf 'FAILED: %s\n%s\n' "$1" "$problem" | head -n 12 >&2
}
for shape in one replicas; do
  base=()
  [ "$shape" = one ] || base=(--values helm/feed/examples/jetstream.yaml)
  admit "$shape: the defaults" "${base[@]}"
  all=()
  for set in both "$shape"; do
    csplit --quiet --elide-empty-files --prefix "$work/$shape-$set-" --suffix-format '%03d.yaml' --suppress-matched "$work/$set" '/^---$/' '{*}'
    for values in "$work/$shape-$set"-*.yaml; do
      admit "$shape: $(sed -n '1s/^# //p' "$values")" "${base[@]}" --values "$values"
      all+=(--values "$values")
    done
  done
  # Some options exclude each other: the later one holds.
  admit "$shape: all of it" "${base[@]}" "${all[@]}" --set auth.kubernetesTokens=false,auth.policy.existingConfigMap=
done
echo "$tried sets of values tried, $failures not taken by the API server"
[ "$failures" = 0 ]

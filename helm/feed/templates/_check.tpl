{{/* Refuses values that each are right and together are not: the API server would, after half of an install, or the service. */}}
{{- define "feed.check" -}}
{{- $replicated := include "feed.replicated" . }}
{{- with .Values }}
{{- $name := include "feed.fullname" $ }}
{{- if not (regexMatch "^[a-z]" $name) }}
{{- fail (printf "a Service's name begins with a letter, unlike %s: set fullnameOverride" $name) }}
{{- end }}

{{- if not $replicated }}
{{- if gt (int .replicaCount) 1 }}
{{- fail (printf "replicaCount: %d: one process owns the volume. Several replicas need config.engine=jetstream" (int .replicaCount)) }}
{{- end }}
{{- if .autoscaling.enabled }}
{{- fail "autoscaling.enabled: one process owns the volume. Several replicas need config.engine=jetstream" }}
{{- end }}
{{- if .config.natsServers }}
{{- fail "config.natsServers: without config.engine=jetstream, the service keeps a log of its own and does not start" }}
{{- end }}
{{- else if not (or .config.natsServers .existingSecret .envFrom .extraEnv) }}
{{- fail "config.engine=jetstream needs config.natsServers, such as nats://nats:4222" }}
{{- end }}

{{- with .autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "autoscaling: minReplicas %d is more than maxReplicas %d" (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- $requests := $.Values.resources.requests | default dict }}
{{- range $resource, $target := dict "cpu" .targetCPUUtilizationPercentage "memory" .targetMemoryUtilizationPercentage }}
{{- if and $.Values.autoscaling.enabled (not (kindIs "invalid" $target)) (not (hasKey $requests $resource)) }}
{{- fail (printf "autoscaling: a percentage of the requested %s needs resources.requests.%s" $resource $resource) }}
{{- end }}
{{- end }}
{{- end }}

{{- with .service }}
{{- if eq (int .grpcPort) (int .httpPort) }}
{{- fail (printf "service: grpcPort and httpPort are both %d: they must differ" (int .grpcPort)) }}
{{- end }}
{{- if and .grpcNodePort (eq (int .grpcNodePort) (int .httpNodePort)) }}
{{- fail (printf "service: grpcNodePort and httpNodePort are both %d: they must differ" (int .grpcNodePort)) }}
{{- end }}
{{- if and (eq .type "ClusterIP") (or .grpcNodePort .httpNodePort .externalTrafficPolicy) }}
{{- fail "service: grpcNodePort, httpNodePort and externalTrafficPolicy need the type NodePort or LoadBalancer" }}
{{- end }}
{{- if and (ne .type "LoadBalancer") (or .loadBalancerClass .loadBalancerSourceRanges) }}
{{- fail "service: loadBalancerClass and loadBalancerSourceRanges need the type LoadBalancer" }}
{{- end }}
{{- end }}

{{- range $labels := list "podLabels" "commonLabels" }}
{{- range $label, $_ := include "feed.selectorLabels" $ | fromYaml }}
{{- if hasKey (index $.Values $labels) $label }}
{{- fail (printf "%s: %s is what the Service finds its pods by. Set nameOverride instead" $labels $label) }}
{{- end }}
{{- end }}
{{- end }}

{{- range $value, $secret := dict "natsCredentials" "credentials" "natsSystemCredentials" "systemCredentials" "natsTlsCa" "tls" }}
{{- if and (index $.Values.config $value) (index $.Values.nats $secret).existingSecret }}
{{- fail (printf "config.%s and nats.%s.existingSecret are set: set one" $value $secret) }}
{{- end }}
{{- end }}

{{- with .updateStrategy }}
{{- if eq (.type | default "") ($replicated | empty | ternary "Recreate" "OnDelete") }}
{{- fail (printf "updateStrategy: a %s has no type %s" ($replicated | empty | ternary "StatefulSet" "Deployment") .type) }}
{{- end }}
{{- end }}

{{- with .resources }}
{{- $limits := .limits | default dict }}
{{- range $resource, $request := merge dict (.requests | default dict) $limits }}
{{- if and (contains "/" $resource) (ne (toString $request) (toString (get $limits $resource))) }}
{{- fail (printf "resources: %s can't be shared, so its request and its limit are the same number" $resource) }}
{{- end }}
{{- end }}
{{- range $resource, $request := .requests }}
{{- $limit := get $limits $resource }}
{{- if and $limit (gt (include "feed.quantity" $request | float64) (include "feed.quantity" $limit | float64)) }}
{{- fail (printf "resources: the request of %v for %s is above its limit of %v" $request $resource $limit) }}
{{- end }}
{{- end }}
{{- end }}

{{- include "feed.checkVolumes" $ }}
{{- end }}
{{- end }}

{{/* Refuses two volumes of one name, two at one path, mounts of volumes that are not there, and two containers of one name. */}}
{{- define "feed.checkVolumes" -}}
{{- $volumes := dict }}
{{- $paths := dict }}
{{- range $name, $_ := include "feed.mounts" . | fromJson }}
{{- $_ := set $volumes $name true }}
{{- $_ := set $paths (printf "/etc/feed/%s" $name) true }}
{{- end }}
{{- if .Values.auth.kubernetesTokens }}
{{- $_ := set $volumes "issuer" true }}
{{- $_ := set $paths "/var/run/secrets/feed" true }}
{{- end }}
{{- if not (include "feed.replicated" .) }}
{{- $_ := set $volumes "data" true }}
{{- $_ := set $paths "/data" true }}
{{- end }}
{{- range .Values.extraVolumes }}
{{- if hasKey $volumes .name }}
{{- fail (printf "extraVolumes: there is another volume called %s" .name) }}
{{- end }}
{{- $_ := set $volumes .name true }}
{{- end }}
{{- range .Values.extraVolumeMounts }}
{{- if not (hasKey $volumes .name) }}
{{- fail (printf "extraVolumeMounts: there is no volume called %s in extraVolumes" .name) }}
{{- end }}
{{- if hasKey $paths .mountPath }}
{{- fail (printf "extraVolumeMounts: another volume is mounted at %s" .mountPath) }}
{{- end }}
{{- $_ := set $paths .mountPath true }}
{{- end }}
{{- $containers := dict "feed" true }}
{{- range concat .Values.extraContainers .Values.initContainers }}
{{- if hasKey $containers .name }}
{{- fail (printf "extraContainers, initContainers: there is another container called %s" .name) }}
{{- end }}
{{- $_ := set $containers .name true }}
{{- end }}
{{- end }}

{{/* The number that a quantity such as 250m or 1Gi stands for. */}}
{{- define "feed.quantity" -}}
{{- $factors := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- $text := toString . }}
{{- $suffix := regexFind "([numkMGTPE]|[KMGTPE]i)$" $text }}
{{- printf "%.9f" (mulf (trimSuffix $suffix $text | float64) (get $factors $suffix | default 1.0)) }}
{{- end }}

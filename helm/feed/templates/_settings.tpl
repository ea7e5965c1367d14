{{/*
The FEED_ variables that the values set, as JSON; an empty one is not set. `$own` follows from values that the rest of the chart
follows, too: ports, volumes, probes, grace period.
*/}}
{{- define "feed.settings" -}}
{{- $tls := .Values.tls.existingSecret }}
{{- $own := dict
  "FEED_GRPC_ADDRESS" (printf "%s:50051" .Values.listenHost)
  "FEED_HTTP_ADDRESS" (printf "%s:8080" .Values.listenHost)
  "FEED_HEALTH_ADDRESS" ($tls | empty | ternary "" (printf "%s:50052" .Values.listenHost))
  "FEED_METRICS_ADDRESS" (printf "%s:9464" .Values.listenHost)
  "FEED_TLS_CERT" (include "feed.tlsFile" (list .Values.tls "certKey"))
  "FEED_TLS_KEY" (include "feed.tlsFile" (list .Values.tls "keyKey"))
  "FEED_TLS_CLIENT_CA" (.Values.tls.clientCertificates | ternary (include "feed.tlsFile" (list .Values.tls "clientCaKey")) "")
  "FEED_DATA_DIR" "/data"
  "FEED_DRAIN_DELAY" (printf "%ds" (include "feed.drainDelay" . | int))
  "FEED_DRAIN_TIMEOUT" (printf "%ds" (int .Values.drain.timeoutSeconds))
  "FEED_DRAIN_SPREAD" (printf "%ds" (int .Values.drain.spreadSeconds))
}}
{{- if include "feed.replicated" . }}
{{- $_ := unset $own "FEED_DATA_DIR" }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- with $value }}{{ $_ := set $own (printf "FEED_%s" ($key | snakecase | upper)) . }}{{ end }}
{{- end }}
{{- with .Values.auth }}
{{- if or .policy.existingConfigMap .policy.existingSecret }}
{{- $_ := set $own "FEED_POLICY_FILE" "/etc/feed/policy/policy.yaml" }}
{{- end }}
{{- if or .publicKeys.existingConfigMap .publicKeys.existingSecret }}
{{- $_ := set $own "FEED_JWT_PUBLIC_KEY" "/etc/feed/keys/keys" }}
{{- end }}
{{- if .kubernetesTokens }}
{{- if or (hasKey $own "FEED_JWT_PUBLIC_KEY") $.Values.config.jwtJwksUrl }}
{{- fail "auth.kubernetesTokens has the keys of the cluster: auth.publicKeys, config.jwtPublicKey and config.jwtJwksUrl name others. Set one" }}
{{- end }}
{{- $_ := set $own "FEED_JWT_JWKS_URL" "https://kubernetes.default.svc/openid/v1/jwks" }}
{{- $_ := set $own "FEED_JWT_JWKS_CA" "/var/run/secrets/feed/ca.crt" }}
{{- $_ := set $own "FEED_JWT_JWKS_TOKEN" "/var/run/secrets/feed/token" }}
{{- end }}
{{- end }}
{{- with .Values.nats }}
{{- if .credentials.existingSecret }}
{{- $_ := set $own "FEED_NATS_CREDENTIALS" (printf "/etc/feed/nats-credentials/%s" .credentials.key) }}
{{- end }}
{{- if .systemCredentials.existingSecret }}
{{- $_ := set $own "FEED_NATS_SYSTEM_CREDENTIALS" (printf "/etc/feed/nats-system/%s" .systemCredentials.key) }}
{{- end }}
{{- if .tls.existingSecret }}
{{- $_ := set $own "FEED_NATS_TLS_CA" (printf "/etc/feed/nats-tls/%s" .tls.caKey) }}
{{- if .tls.clientCertificate }}
{{- $_ := set $own "FEED_NATS_TLS_CERT" (printf "/etc/feed/nats-tls/%s" .tls.certKey) }}
{{- $_ := set $own "FEED_NATS_TLS_KEY" (printf "/etc/feed/nats-tls/%s" .tls.keyKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasKey $own .name }}
{{- fail (printf "extraEnv: %s follows from other values of this chart (config, drain, listenHost, tls, nats or auth): set those instead" .name) }}
{{- end }}
{{- end }}
{{- toJson $own }}
{{- end }}

{{/* The path of a file of the Secret of TLS, by the name of the value with its key; empty without TLS. */}}
{{- define "feed.tlsFile" -}}
{{- with index . 0 }}{{ if .existingSecret }}/etc/feed/tls/{{ index . (index $ 1) }}{{ end }}{{ end }}
{{- end }}

{{/* How long to go on serving while not ready, in seconds: so long that load balancers notice, where they have another pod. */}}
{{- define "feed.drainDelay" -}}
{{- if kindIs "invalid" .Values.drain.delaySeconds }}{{ include "feed.replicated" . | empty | ternary 0 5 }}
{{- else }}{{ .Values.drain.delaySeconds }}{{ end }}
{{- end }}

{{/*
The whole of an orderly end, or the pod is killed within it. 15: beside these times the service takes
up to about 10 s to end the streams of clients that do not read, and to flush and close the store.
*/}}
{{- define "feed.gracePeriod" -}}
{{- with .Values.drain }}{{ add .preStopSeconds (include "feed.drainDelay" $) .timeoutSeconds .spreadSeconds 15 }}{{ end }}
{{- end }}

{{/*
The ConfigMaps and Secrets that are there already and that the pod mounts in /etc/feed/<name>, as JSON:
{<name>: {existingConfigMap, existingSecret}}.
*/}}
{{- define "feed.mounts" -}}
{{- with .Values }}
{{- $nats := .nats }}
{{- $all := dict
  "tls" .tls
  "policy" .auth.policy
  "keys" .auth.publicKeys
  "nats-credentials" $nats.credentials
  "nats-system" $nats.systemCredentials
  "nats-tls" $nats.tls
}}
{{- $used := dict }}
{{- range $name, $from := $all }}
{{- if and $from.existingConfigMap $from.existingSecret }}
{{- fail (printf "auth: give %s a ConfigMap or a Secret, not both" $name) }}
{{- end }}
{{- if or $from.existingConfigMap $from.existingSecret }}
{{- $_ := set $used $name (pick $from "existingConfigMap" "existingSecret") }}
{{- end }}
{{- end }}
{{- toJson $used }}
{{- end }}
{{- end }}

{{- define "feed.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: a pod is called <name>-0, its revision label <name>-<hash>, a Service <name>-headless. */}}
{{- define "feed.fullname" -}}
{{- $name := include "feed.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $full | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* What never changes in the life of a release: selectors and volume claims can't be changed. */}}
{{- define "feed.selectorLabels" -}}
app.kubernetes.io/name: {{ include "feed.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "feed.labels" -}}
{{ include "feed.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "feed.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "feed.fullname" .) "default") }}
{{- end }}

{{- define "feed.image" -}}
{{- with .Values.image }}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* The path of a file of the Secret of TLS, by the name of the value with its key; empty without TLS. */}}
{{- define "feed.tlsFile" -}}
{{- with index . 0 }}{{ if .existingSecret }}/etc/feed/tls/{{ index . (index $ 1) }}{{ end }}{{ end }}
{{- end }}

{{/* The protocol of the gRPC port on a Service. "https" is for meshes and gateways that pass TLS on. */}}
{{- define "feed.grpcProtocol" -}}
{{- /* HTTP/2 without TLS, by the name that Kubernetes reserves for it and the Gateway API tests for; "grpc" is known to some
meshes only. */ -}}
{{- .Values.tls.existingSecret | empty | ternary "kubernetes.io/h2c" "https" }}
{{- end }}

{{- define "feed.httpProtocol" -}}
{{- .Values.tls.existingSecret | empty | ternary "http" "https" }}
{{- end }}

{{/*
The whole of an orderly end, or the pod is killed within it. 15: beside these times the service takes
up to about 10 s to end the streams of clients that do not read, and to flush and close the store.
*/}}
{{- define "feed.gracePeriod" -}}
{{- with .Values.drain }}{{ add .preStopSeconds .delaySeconds .timeoutSeconds .spreadSeconds 15 }}{{ end }}
{{- end }}

{{/* A volume of a ConfigMap or a Secret that is there already: (dict "name" ... "from" {existingConfigMap, existingSecret}). */}}
{{- define "feed.mounted" -}}
{{- if and .from.existingConfigMap .from.existingSecret }}
{{- fail (printf "auth: give %s a ConfigMap or a Secret, not both" .name) }}
{{- end -}}
- name: {{ .name }}
  {{- if .from.existingConfigMap }}
  configMap:
    name: {{ .from.existingConfigMap }}
  {{- else }}
  secret:
    secretName: {{ .from.existingSecret }}
  {{- end }}
{{- end }}

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

{{/* Of the pod of `helm test`: the Service must not take it for a replica. */}}
{{- define "feed.testLabels" -}}
app.kubernetes.io/name: {{ include "feed.name" . | trunc 58 }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The annotations and labels of an object: (list $ <its own labels> <its own annotations>). */}}
{{- define "feed.metadata" -}}
{{- $root := index . 0 }}
{{- with mergeOverwrite dict $root.Values.commonAnnotations (index . 2) -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
labels:
  {{- mergeOverwrite dict (include "feed.labels" $root | fromYaml) $root.Values.commonLabels (index . 1) | toYaml | nindent 2 }}
{{- end }}

{{/* "true" for several replicas on NATS; empty for one process on its own volume. */}}
{{- define "feed.replicated" -}}
{{- if eq .Values.config.engine "jetstream" }}true{{ end }}
{{- end }}

{{/* The name by which clients in the cluster reach the service. */}}
{{- define "feed.host" -}}
{{ include "feed.fullname" . }}.{{ .Release.Namespace }}.svc
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

{{/* The protocol of the gRPC port on a Service. "https" is for meshes and gateways that pass TLS on. */}}
{{- define "feed.grpcProtocol" -}}
{{- /* HTTP/2 without TLS, by the name that Kubernetes reserves for it and the Gateway API tests for; "grpc" is known to some
meshes only. */ -}}
{{- .Values.tls.existingSecret | empty | ternary "kubernetes.io/h2c" "https" }}
{{- end }}

{{- define "feed.httpProtocol" -}}
{{- .Values.tls.existingSecret | empty | ternary "http" "https" }}
{{- end }}

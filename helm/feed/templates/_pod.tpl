{{/* The template of the pods, for both shapes. */}}
{{- define "feed.pod" -}}
{{- include "feed.check" . }}
{{- $tls := .Values.tls.existingSecret }}
{{- $replicated := include "feed.replicated" . }}
{{- $mounts := include "feed.mounts" . | fromJson -}}
metadata:
  # Nothing that changes with the chart's version alone: that would restart the pod and end every stream.
  labels:
    {{- include "feed.selectorLabels" . | nindent 4 }}
    {{- with mergeOverwrite dict .Values.commonLabels .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with mergeOverwrite dict .Values.commonAnnotations .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "feed.serviceAccountName" . }}
  automountServiceAccountToken: false
  # Or Kubernetes puts FEED_PORT=tcp://... and the like into the pod for Services called feed: this
  # chart's own. They are no settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "feed.gracePeriod" . }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: feed
      image: {{ include "feed.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      ports:
        - name: grpc
          containerPort: 50051
        - name: http
          containerPort: 8080
        - name: metrics
          containerPort: 9464
        {{- if $tls }}
        - name: health
          containerPort: 50052
        {{- end }}
      env:
        {{- range $name, $value := include "feed.settings" . | fromJson }}
        {{- if $value }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or .Values.envFrom .Values.existingSecret }}
      envFrom:
        {{- with .Values.existingSecret }}
        - secretRef:
            name: {{ . }}
        {{- end }}
        {{- with .Values.envFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      # Both ports open only when the store is open. A log that may be a copy is read whole before that.
      startupProbe:
        {{- include "feed.healthz" . | nindent 8 }}
        {{- toYaml .Values.startupProbe | nindent 8 }}
        failureThreshold: {{ divf .Values.startup.timeoutSeconds .Values.startupProbe.periodSeconds | ceil }}
      # The event loop turns.
      livenessProbe:
        {{- include "feed.healthz" . | nindent 8 }}
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      readinessProbe:
        grpc:
          # gRPC probes have no TLS.
          port: {{ $tls | empty | ternary 50051 50052 }}
          service: feed.v1.FeedService
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      {{- if gt (int .Values.drain.preStopSeconds) 0 }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.drain.preStopSeconds }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      {{- if or (not $replicated) $mounts .Values.auth.kubernetesTokens .Values.extraVolumeMounts }}
      volumeMounts:
        {{- if not $replicated }}
        - name: data
          mountPath: /data
        {{- end }}
        {{- range $name, $from := $mounts }}
        # The whole directory: Kubernetes never changes a file that is mounted by itself.
        - name: {{ $name }}
          mountPath: /etc/feed/{{ $name }}
          readOnly: true
        {{- end }}
        {{- if .Values.auth.kubernetesTokens }}
        - name: issuer
          mountPath: /var/run/secrets/feed
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $pods := dict "matchLabels" (include "feed.selectorLabels" . | fromYaml) }}
  {{- $spread := .Values.topologySpreadConstraints }}
  {{- if and $replicated (kindIs "invalid" $spread) }}
  {{- $evenly := dict "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" }}
  {{- $spread = list }}
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  {{- $spread = append $spread (merge (dict "topologyKey" $key) $evenly) }}
  {{- end }}
  {{- end }}
  {{- with $spread }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ merge (deepCopy .) (dict "labelSelector" $pods) | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- $isEmptyDir := not (or $replicated .Values.persistence.enabled) }}
  {{- $claim := and (not $replicated) .Values.persistence.enabled .Values.persistence.existingClaim }}
  {{- if or $isEmptyDir $claim $mounts .Values.auth.kubernetesTokens .Values.extraVolumes }}
  volumes:
    {{- if $isEmptyDir }}
    - name: data
      emptyDir: {}
    {{- end }}
    {{- with $claim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ . }}
    {{- end }}
    {{- range $name, $from := $mounts }}
    - name: {{ $name }}
      {{- if $from.existingConfigMap }}
      configMap:
        name: {{ $from.existingConfigMap }}
      {{- else }}
      secret:
        secretName: {{ $from.existingSecret }}
        # For the pod's fsGroup.
        defaultMode: 0440
      {{- end }}
    {{- end }}
    {{- if .Values.auth.kubernetesTokens }}
    # What it takes to read the keys of the cluster's own issuer, and nothing else.
    - name: issuer
      projected:
        sources:
          - serviceAccountToken:
              path: token
              expirationSeconds: 3600
          - configMap:
              name: kube-root-ca.crt
              items:
                - key: ca.crt
                  path: ca.crt
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "feed.healthz" -}}
httpGet:
  path: /healthz
  port: http
  {{- if .Values.tls.existingSecret }}
  # Kubernetes looks at no certificate, and has none, which these paths do not ask for.
  scheme: HTTPS
  {{- end }}
{{- end }}

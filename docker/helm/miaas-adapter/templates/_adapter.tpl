{{/* A Deployment of the adapter; takes (dict "root" $ "role" "serve" "scaled" whether something else counts its pods). */}}
{{- define "miaas.deployment" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
{{- $scheme := include "miaas.scheme" $root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "miaas.name" $root }}-{{ .role }}
  labels: {{- include "miaas.labels" (list $root .role) | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "miaas.selector" (list $root .role) | nindent 6 }}
  template:
    metadata:
      labels: {{- include "miaas.labels" (list $root .role) | nindent 8 }}
      annotations:
        # New settings make new pods.
        checksum/settings: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
        {{- with $values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      serviceAccountName: {{ include "miaas.name" $root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      # Five seconds of sleep, then ADAPTER_SHUTDOWN_TIMEOUT_S.
      terminationGracePeriodSeconds: {{ add 15 (ceil (get $root.Values.settings "shutdown_timeout_s" | default 8)) }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- include "miaas.podSecurity" 10001 | nindent 8 }}
      {{- include "miaas.placement" (list $root .role $values) | nindent 6 }}
      containers:
        - name: {{ .role }}
          image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}"
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .role }}]
          {{- include "miaas.environment" $root | nindent 10 }}
          ports:
            {{- if eq .role "serve" }}
            - {name: http, containerPort: 8080}
            {{- end }}
            - {name: ops, containerPort: 8081}
          {{- if eq .role "serve" }}
          # Ready once Triton and NATS answered; from then on as long as the process lives. When one of them is away,
          # it is so for every pod: taking all of them out would end predictions that still succeed.
          startupProbe:
            httpGet: {path: /readyz, port: ops, scheme: {{ $scheme }}}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 150
          readinessProbe:
            httpGet: {path: /livez, port: ops, scheme: {{ $scheme }}}
            periodSeconds: 5
            timeoutSeconds: 3
          {{- else }}
          readinessProbe:
            httpGet: {path: /readyz, port: ops, scheme: {{ $scheme }}}
            periodSeconds: 5
            timeoutSeconds: 5
          {{- end }}
          livenessProbe:
            httpGet: {path: /livez, port: ops, scheme: {{ $scheme }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          lifecycle:
            # Until nobody sends it anything more.
            preStop: {sleep: {seconds: 5}}
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "miaas.containerSecurity" . | nindent 12 }}
          volumeMounts: {{- include "miaas.mounts" $root | nindent 12 }}
      volumes: {{- include "miaas.volumes" $root | nindent 8 }}
{{- end }}

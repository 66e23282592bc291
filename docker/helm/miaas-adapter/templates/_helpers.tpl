{{- define "miaas.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What selects a component's pods; takes (list $ "serve"). */}}
{{- define "miaas.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "miaas.labels" -}}
{{- $root := index . 0 -}}
{{ include "miaas.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* HTTPS where the listeners have a certificate. */}}
{{- define "miaas.scheme" -}}
{{ if hasKey .Values.files "tls_cert_file" }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{/* A setting's value as text: YAML's whole numbers must not turn into 6.7e+07. */}}
{{- define "miaas.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod; takes the user's id. */}}
{{- define "miaas.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* And of a container. */}}
{{- define "miaas.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods go; takes (list $ "serve" .Values.serve). */}}
{{- define "miaas.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "miaas.selector" (list $root (index . 1)) | nindent 8 }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The settings of serve and worker. */}}
{{- define "miaas.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "miaas.name" . }}}
{{- with .Values.secretSettings }}
env:
  {{- range $name, $from := . }}
  - name: ADAPTER_{{ upper $name }}
    valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Room for large bodies of requests, and the Secrets behind `files` and the API keys: folders, so that renewed ones arrive. */}}
{{- define "miaas.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $from := .Values.files }}
- {name: {{ $name | replace "_" "-" }}, mountPath: /secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- if .Values.apiKeysSecret }}
- {name: api-keys, mountPath: /keys, readOnly: true}
{{- end }}
{{- end }}

{{- define "miaas.volumes" -}}
- name: tmp
  emptyDir: {}
{{- range $name, $from := .Values.files }}
- name: {{ $name | replace "_" "-" }}
  secret: {secretName: {{ $from.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.apiKeysSecret }}
- name: api-keys
  secret: {secretName: {{ .Values.apiKeysSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* What selects Pods. It never changes, whatever the version: selectors are immutable. */}}
{{- define "openelb.selector" -}}
app.kubernetes.io/name: openelb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "openelb.labels" -}}
{{ include "openelb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* What the release is called, and the label that its network policy goes by. */}}
{{- define "sequencer.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sequencer.selector" -}}
app: sequencer
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "sequencer.labels" -}}
app.kubernetes.io/name: sequencer
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sequencer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Of every container: no rights, no writing but to what is mounted for it. */}}
{{- define "sequencer.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "sequencer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001 # with defaultMode 0400 a secret's files become 0440: readable by the server's group
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sequencer.databaseCa" -}}
{{- if .Values.database.caConfigMap }}
- name: database-ca
  configMap: {name: {{ .Values.database.caConfigMap }}}
{{- end }}
{{- end -}}

{{/* Whom the database is: the peers of a network policy. */}}
{{- define "sequencer.databasePeers" -}}
{{- if .Values.database.cidrs }}
{{- range .Values.database.cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- else }}
- podSelector:
    matchLabels: {{- toYaml .Values.database.podLabels | nindent 6 }}
  {{- if .Values.database.namespace }}
  namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .Values.database.namespace }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "sequencer.dnsRule" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.dns.namespace }}}
      podSelector:
        matchLabels: {{- toYaml .Values.networkPolicy.dns.podLabels | nindent 10 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{/* What would be insecure, or could not start, is refused here already, with the value to set. */}}
{{- define "sequencer.refusals" -}}
{{- $v := .Values -}}
{{- if not $v.image.repository }}{{ fail "image.repository: name the image that you built from deploy/container/Dockerfile" }}{{ end -}}
{{- if not (or $v.image.digest $v.image.tag) }}{{ fail "image.digest: pin the image (or give image.tag)" }}{{ end -}}
{{- if not $v.nodeIdPrefix }}{{ fail "nodeIdPrefix: the first 35 characters of a UUID of your own (python -c 'import uuid; print(str(uuid.uuid4())[:35])'); keep it for ever" }}{{ end -}}
{{- if not $v.secrets.existingSecret }}{{ fail "secrets.existingSecret: the name of a Secret with bootstrap-admin-api-key, payload-encryption-keys, database-url and signing-key-0 …" }}{{ end -}}
{{- if and $v.migrations.enabled (not $v.migrations.existingSecret) }}{{ fail "migrations.existingSecret: the name of a Secret with database-owner-url; or migrations.enabled=false and run `sequencer migrate` yourself" }}{{ end -}}
{{- if eq $v.migrations.existingSecret $v.secrets.existingSecret }}{{ fail "migrations.existingSecret: the owner's login must be in another Secret than the server's" }}{{ end -}}
{{- if and $v.anchor.existingSecret (or (eq $v.anchor.existingSecret $v.secrets.existingSecret) (eq $v.anchor.existingSecret $v.migrations.existingSecret)) }}{{ fail "anchor.existingSecret: the chain's key must be in another Secret than the server's and the owner's" }}{{ end -}}
{{- if and $v.anchor.existingSecret (not (and $v.anchor.chainId $v.anchor.contract)) }}{{ fail "anchor.chainId and anchor.contract: which chain, and the address that `sequencer anchor deploy` told" }}{{ end -}}
{{- if and $v.anchor.existingSecret $v.networkPolicy.enabled (not $v.networkPolicy.outside.enabled) }}{{ fail "networkPolicy.outside.enabled: the anchor has to reach the chain's RPC" }}{{ end -}}
{{- if and (eq $v.tls.mode "process") (not $v.tls.secretName) }}{{ fail "tls.secretName: a Secret of type kubernetes.io/tls; or tls.mode=proxy" }}{{ end -}}
{{- if and (eq $v.tls.mode "proxy") (not $v.tls.acceptClearTextInCluster) }}{{ fail "tls.acceptClearTextInCluster: with tls.mode=proxy events and credentials cross the cluster's network in clear text; set it to true if that network is encrypted or yours alone" }}{{ end -}}
{{- if and $v.admin.expose (not $v.admin.allowlist) }}{{ fail "admin.allowlist: who may speak to the admin listener, for example 127.0.0.0/8 and the monitoring pods' network" }}{{ end -}}
{{- if and $v.monitoring.serviceMonitor.enabled (not $v.admin.expose) }}{{ fail "admin.expose: /metrics is on the admin listener; set it to true for the ServiceMonitor" }}{{ end -}}
{{- if and $v.monitoring.serviceMonitor.enabled (not $v.monitoring.serviceMonitor.existingSecret) }}{{ fail "monitoring.serviceMonitor.existingSecret: a Secret whose key token is an API key of role monitor" }}{{ end -}}
{{- if and $v.ingress.enabled (not (and $v.ingress.host $v.ingress.tlsSecretName)) }}{{ fail "ingress.host and ingress.tlsSecretName: an ingress without TLS is refused" }}{{ end -}}
{{- end -}}

{{- define "dms.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "dms.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dms.labels" -}}
{{ include "dms.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The pod of both kinds: a server on a volume, and servers on PostgreSQL. */}}
{{- define "dms.pod" -}}
metadata:
  labels:
    {{- include "dms.selector" . | nindent 4 }}
  annotations:
    # The server reads a changed configuration itself, but most keys of `server` need a restart.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # Keeps out variables such as DMS_WORKER_ADMIN_PORT, which Services with such a name create and which are not settings.
  enableServiceLinks: false
  automountServiceAccountToken: false
  # Longer than the 20 s that requests in progress may take, and the 15 s of handing queues over.
  terminationGracePeriodSeconds: 60
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
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
  containers:
    - name: server
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: DMS_ACCESS_KEY
          valueFrom: {secretKeyRef: {name: {{ .Values.secrets.keys }}, key: access_key}}
      ports:
        - {name: dms, containerPort: 9400}
        - {name: admin, containerPort: 9401}
        {{- if .Values.secrets.postgres }}
        - {name: hop, containerPort: 9410}
        {{- end }}
      startupProbe: {httpGet: {path: /readyz, port: admin, scheme: HTTPS}, periodSeconds: 2, failureThreshold: 60}
      readinessProbe: {httpGet: {path: /readyz, port: admin, scheme: HTTPS}, periodSeconds: 5, timeoutSeconds: 6}
      livenessProbe: {httpGet: {path: /livez, port: admin, scheme: HTTPS}, periodSeconds: 10, timeoutSeconds: 6}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: config, mountPath: /etc/dms-worker, readOnly: true}
        - {name: keys, mountPath: /run/secrets/dms, readOnly: true}
        - {name: tls, mountPath: /run/secrets/tls, readOnly: true}
        {{- if .Values.secrets.postgres }}
        - {name: postgres, mountPath: /run/secrets/postgres, readOnly: true}
        {{- if .Values.secrets.hop }}
        - {name: hop, mountPath: /run/secrets/hop, readOnly: true}
        {{- end }}
        {{- else }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    # Files owned by root that only the group of the process can read.
    - name: keys
      secret: {secretName: {{ .Values.secrets.keys }}, defaultMode: 0440}
    - name: tls
      secret: {secretName: {{ .Values.secrets.tls }}, defaultMode: 0440}
    {{- if .Values.secrets.postgres }}
    - name: postgres
      secret: {secretName: {{ .Values.secrets.postgres }}, defaultMode: 0440}
    {{- if .Values.secrets.hop }}
    - name: hop
      secret: {secretName: {{ .Values.secrets.hop }}, defaultMode: 0440}
    {{- end }}
    {{- end }}
    - name: config
      configMap: {name: {{ include "dms.name" . }}}
{{- end -}}

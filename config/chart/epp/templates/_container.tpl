{{- define "epp.container" -}}
{{- $values := .Values -}}
- name: epp
  image: {{ printf "%s:%s" $values.image.repository $values.image.tag | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- if $values.envoy.enabled }}
  restartPolicy: Always
  {{- end }}
  args:
    - serve
    {{- range include "epp.poolArgs" . | fromJsonArray }}
    - {{ . | quote }}
    {{- end }}
    - --config-file=/etc/epp/picker.yaml
    - --log-format=json
    {{- if ne $values.logLevel "info" }}
    - --log-level={{ $values.logLevel }}
    {{- end }}
    - --handover-timeout={{ include "epp.handoverSeconds" . }}
    - --drain-timeout={{ int $values.shutdown.drainSeconds }}
    - --shutdown-grace={{ int $values.shutdown.graceSeconds }}
    - --metrics-endpoint-auth={{ $values.metrics.auth }}
    {{- if $values.leaderElection.enabled }}
    - --ha-enable-leader-election
    - --ha-lease-duration={{ int $values.leaderElection.leaseDurationSeconds }}
    - --ha-renew-interval={{ $values.leaderElection.renewIntervalSeconds }}
    {{- end }}
    {{- if eq (include "epp.foundBy" .) "label" }}
    - --ha-leader-label=inference-epp/leader={{ include "epp.name" . }}
    {{- end }}
    {{- if gt (int $values.workers) 1 }}
    - --workers={{ int $values.workers }}
    {{- end }}
    {{- if not (include "epp.tls" .) }}
    - --secure-serving=false
    {{- else if $values.tls.secretName }}
    - --cert-path=/etc/epp-tls
    {{- end }}
    {{- if $values.envoy.enabled }}
    - --eds-file=/var/run/epp/eds.json
    {{- end }}
    {{- range $values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: POD_IP
      valueFrom:
        fieldRef:
          fieldPath: status.podIP
    {{- if include "epp.servesImports" . }}
    # The member clusters. Its own one it reaches by the service account all the same.
    - name: KUBECONFIG
      value: /etc/epp-members/kubeconfig
    {{- end }}
  ports:
    - name: grpc-ext-proc
      containerPort: 9002
    - name: grpc-health
      containerPort: 9003
    - name: http-metrics
      containerPort: 9090
  startupProbe:
    {{- if $values.envoy.enabled }}
    # It listens for Envoy as soon as it has written the endpoints.
    tcpSocket:
      port: grpc-ext-proc
    periodSeconds: 1
    failureThreshold: 600
    {{- else }}
    grpc:
      port: 9003
      service: liveness
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 60
    {{- end }}
  # Alive is a process that answers, whether it leads or not and whatever becomes of the API server.
  livenessProbe:
    grpc:
      port: 9003
      service: liveness
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    {{- if has (include "epp.foundBy" .) (list "label" "health") }}
    # Ready is one that knows its pools, whether it leads or not.
    tcpSocket:
      port: grpc-ext-proc
    periodSeconds: 1
    failureThreshold: 2
    {{- else }}
    # Ready is one that gateways are to ask.
    grpc:
      port: 9003
      service: readiness
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: {{ if include "epp.onlyLeaderReady" . }}1{{ else }}2{{ end }}
    {{- end }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    {{- include "epp.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/epp
      readOnly: true
    {{- if and (include "epp.tls" .) $values.tls.secretName }}
    - name: certificate
      mountPath: /etc/epp-tls
      readOnly: true
    {{- end }}
    {{- if include "epp.servesImports" . }}
    - name: members
      mountPath: /etc/epp-members
      readOnly: true
    {{- end }}
    {{- if $values.envoy.enabled }}
    - name: endpoints
      mountPath: /var/run/epp
    {{- end }}
{{- end }}

{{- define "epp.envoyContainer" -}}
{{- $envoy := .Values.envoy -}}
- name: envoy
  image: {{ $envoy.image | quote }}
  args:
    - --config-path=/etc/envoy/envoy.yaml
    - --concurrency={{ int $envoy.concurrency }}
    - --disable-hot-restart
    - --log-level=warning
  ports:
    - name: http
      containerPort: 8080
  startupProbe:
    tcpSocket:
      port: http
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    tcpSocket:
      port: http
    periodSeconds: 10
    failureThreshold: 3
  readinessProbe:
    tcpSocket:
      port: http
    periodSeconds: 2
  # Envoy ends at once when it is told to. So it is told a while after clients have been sent
  # elsewhere, and what has begun until then has as long to end.
  lifecycle:
    preStop:
      sleep:
        seconds: {{ int $envoy.drainSeconds }}
  resources:
    {{- toYaml $envoy.resources | nindent 4 }}
  securityContext:
    {{- include "epp.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: envoy
      mountPath: /etc/envoy
      readOnly: true
    - name: endpoints
      mountPath: /var/run/epp
      readOnly: true
{{- end }}

{{- define "epp.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

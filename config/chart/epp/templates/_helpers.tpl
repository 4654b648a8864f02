{{- define "epp.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "epp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "epp.name" . }}
{{- end }}

{{- define "epp.labels" -}}
{{ include "epp.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The pool of what the chart makes beside the endpoint picker. */ -}}
{{- define "epp.pool" -}}
{{- if not .Values.pools.names }}{{ fail "pools.names: expected the name of a pool" }}{{ end -}}
{{- first .Values.pools.names -}}
{{- end }}

{{- /* What is served: a list of arguments, as JSON. */ -}}
{{- define "epp.poolArgs" -}}
{{- $pools := .Values.pools -}}
{{- $args := list -}}
{{- if $pools.endpointSelector -}}
{{- if not $pools.endpointTargetPorts }}{{ fail "pools.endpointTargetPorts: expected the ports of the pods" }}{{ end -}}
{{- $args = list (printf "--endpoint-selector=%s" $pools.endpointSelector) (printf "--endpoint-target-ports=%s" (join "," $pools.endpointTargetPorts)) -}}
{{- else if $pools.selector -}}
{{- $args = list (printf "--pool-selector=%s" $pools.selector) -}}
{{- else -}}
{{- if not $pools.names }}{{ fail "pools: expected names, a selector or an endpointSelector" }}{{ end -}}
{{- range $pools.names -}}
{{- $args = append $args (printf "--pool-name=%s" .) -}}
{{- end -}}
{{- end -}}
{{- if include "epp.servesImports" . -}}
{{- if $pools.endpointSelector }}{{ fail "pools.imports: expected no pools.endpointSelector beside it" }}{{ end -}}
{{- if ne $pools.group "inference.networking.k8s.io" }}{{ fail "pools.imports: expected no pools.group beside it" }}{{ end -}}
{{- $args = concat $args (list "--pool-kind=InferencePoolImport" (printf "--member-clusters=%s" (join "," $pools.imports.memberClusters))) -}}
{{- if $pools.imports.actAsExportingController -}}
{{- $args = append $args "--act-as-exporting-controller" -}}
{{- end -}}
{{- else if ne $pools.group "inference.networking.k8s.io" -}}
{{- $args = append $args (printf "--pool-group=%s" $pools.group) -}}
{{- end -}}
{{- toJson $args -}}
{{- end }}

{{- /* Whether the pools are those that other clusters export. */ -}}
{{- define "epp.servesImports" -}}
{{- if .Values.pools.imports.memberClusters -}}true{{- end -}}
{{- end }}

{{- /* Whether ext_proc is served with TLS: not to an Envoy in the same pod. */ -}}
{{- define "epp.tls" -}}
{{- if and .Values.tls.enabled (not .Values.envoy.enabled) -}}true{{- end -}}
{{- end }}

{{- define "epp.handoverSeconds" -}}
{{- $given := .Values.shutdown.handoverSeconds -}}
{{- if not (kindIs "invalid" $given) }}{{ int $given }}{{ else if include "epp.onlyLeaderReady" . }}30{{ else }}5{{ end -}}
{{- end }}

{{- /* The name of the Lease, where it is known here. */ -}}
{{- define "epp.leaseName" -}}
{{- $pools := .Values.pools -}}
{{- if not (or $pools.endpointSelector $pools.selector) -}}
{{- $name := printf "epp-%s-%s%s.llm-d.ai" .Release.Namespace (ternary "import-" "" (eq (include "epp.servesImports" .) "true")) (join "-" (sortAlpha $pools.names)) -}}
{{- if le (len $name) 253 -}}{{ $name }}{{- end -}}
{{- end -}}
{{- end }}

{{- define "epp.foundBy" -}}
{{- if .Values.leaderElection.enabled -}}{{ .Values.leaderElection.foundBy }}{{- end -}}
{{- end }}

{{- /* Whether of several pods only one is ready in Kubernetes' sense. */ -}}
{{- define "epp.onlyLeaderReady" -}}
{{- if eq (include "epp.foundBy" .) "readiness" -}}true{{- end -}}
{{- end }}

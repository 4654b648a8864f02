"""Values of the chart that are tried, by a name for each set."""

from typing import Any

__all__ = ["EXAMPLES"]

EXAMPLES: dict[str, dict[str, Any]] = {
    "default": {},
    "leader": {"leaderElection": {"enabled": True}},
    "ready-leader": {"leaderElection": {"enabled": True, "foundBy": "readiness"}},
    "health-checked": {"leaderElection": {"enabled": True, "foundBy": "health"}},
    "active-active": {"replicas": 3, "workers": 2, "tls": {"enabled": False}},
    "observed": {"metrics": {"auth": True, "monitor": "ServiceMonitor"}},
    "closed": {"networkPolicy": {"enabled": True}, "tls": {"secretName": "epp-tls"}},
    "standalone": {"envoy": {"enabled": True}, "networkPolicy": {"enabled": True}},
    "several": {"pools": {"selector": "inference-epp/picker=epp"}, "logLevel": "debug"},
    "older": {"pools": {"names": ["a", "b"], "group": "inference.networking.x-k8s.io"}},
    "imports": {
        "pools": {"imports": {"memberClusters": ["east", "west"]}},
        "leaderElection": {"enabled": True},
        "objectives": {"interactive": 10},
    },
    "no-pool": {"pools": {"endpointSelector": "app=llm", "endpointTargetPorts": [8000, 8001]}},
    "whole": {
        "inferencePool": {"create": True, "matchLabels": {"app": "llm"}},
        "objectives": {"interactive": 10, "batch": -10},
        "autoscaling": {"kind": "HPA"},
        "metrics": {"monitor": "PodMonitor"},
        "extraArgs": ["--request-ttl=20s"],
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{"name": "registry"}],
    },
}

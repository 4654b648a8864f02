"""Pools of several clusters: InferencePoolImports, their endpoints, and exports."""

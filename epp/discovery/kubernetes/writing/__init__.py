"""What is said of objectives and pools in the cluster: conditions and Events."""

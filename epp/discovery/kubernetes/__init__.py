"""What a pool is made of, taken from the API server of a Kubernetes cluster."""

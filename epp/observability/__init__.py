"""What an operator sees of the EPP: metrics and logs."""

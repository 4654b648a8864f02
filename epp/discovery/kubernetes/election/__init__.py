"""Which of several EPPs leads, by a Lease, and the label of its pod."""

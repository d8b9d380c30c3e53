"""What carries operations to servers: batches, calls in flight, resending, order."""

"""What this process holds and waits for in a store."""

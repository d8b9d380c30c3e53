"""Which node owns a slot, and what its redirections mean."""

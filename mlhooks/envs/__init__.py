"""Environment plumbing: agent slots and the manager interface."""

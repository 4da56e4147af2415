"""Keys, metadata policy, audit and manifest."""

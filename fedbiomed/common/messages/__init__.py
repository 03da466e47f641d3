"""Messages between researcher and nodes; one file per conversation."""

"""Where the repository keeps the files' bytes; one file per kind of storage."""

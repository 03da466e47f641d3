"""Published experiments, one file each, made again with this package."""

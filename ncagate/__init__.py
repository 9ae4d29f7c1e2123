"""ncagate: segments 3-D medical scans and says of every mask whether it can be trusted."""

"""Jobs: their rows (the truth), their files, and the queue that carries their names to a worker."""

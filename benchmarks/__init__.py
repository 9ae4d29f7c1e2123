"""What the numbers in the README come from; each prints its ratio and writes JSON."""

"""Immutable model versions with their manifests, and the aliases that point at them."""

"""Arrays to Prediction: the M3D-NCA model, its engines, the ensemble and its quality metric."""

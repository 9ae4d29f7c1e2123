"""Archives: the series they send, which model takes each, and the way back."""

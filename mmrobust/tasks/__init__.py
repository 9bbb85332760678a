"""What is predicted, and how good it is. Empty, so that `metric` imports no torch."""

"""Using a saved model: predictions and vectors of raw inputs."""

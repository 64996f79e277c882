"""The shell around the model: drives bodies, runs attempts, commits in groups."""

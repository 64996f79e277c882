"""Applications that use the two packages as any other program would."""

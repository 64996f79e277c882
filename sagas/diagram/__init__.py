"""Pictures of sagas: what a definition, a run or many runs look like, and the formats to draw them in."""

"""What a body is written with: the users' ``Context``, and the parts of it that a layer above shares."""

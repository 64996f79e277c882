"""Children as the journal tells them: the marks between which another durable function ran in the same run."""

OPENED = "child:"
"""With the child's key: it began. The payload holds its name, version and input."""
COMPLETED = "child-completed:"
"""With the child's key: its body has returned. The payload is the result."""

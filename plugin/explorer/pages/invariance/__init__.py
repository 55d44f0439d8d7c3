"""Three figures on invariant representation."""

"""Inner products of gradients, at one or several checkpoints."""

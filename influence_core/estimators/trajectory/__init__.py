"""Methods that follow the recorded steps of training, rather than looking at where it ended."""

"""Attribution by projected gradients of the margin, over one or more trained models."""

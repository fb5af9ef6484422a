"""From a user's own model to a study: PyTorch, the Hugging Face Trainer, Lightning, scikit-learn."""

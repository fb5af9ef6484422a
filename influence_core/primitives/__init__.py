"""Tensors in, tensors out. Nothing here knows a task, a store or a run; long loops yield their batches."""

"""The training loop, the trainer base classes, the experience store and checkpoints."""

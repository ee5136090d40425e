"""Speed and memory: reading, training, search."""

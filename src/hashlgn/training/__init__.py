"""All that imports PyTorch: from interactions to a trained model."""

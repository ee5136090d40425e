"""A trained model as arrays, on disk and answering."""

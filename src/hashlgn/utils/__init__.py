"""Files, provenance and the console."""

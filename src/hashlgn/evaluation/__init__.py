"""Metrics, and the full-ranking evaluation of models."""

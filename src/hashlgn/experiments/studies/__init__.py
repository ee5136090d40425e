"""Ablation, grid and tuning."""

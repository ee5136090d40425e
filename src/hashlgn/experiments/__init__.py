"""Measurements and demonstrations: reproducible runs, never imported by the library."""

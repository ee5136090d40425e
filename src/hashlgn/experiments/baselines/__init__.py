"""What other people use, measured beside this library."""

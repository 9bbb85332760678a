"""What may be written on the command line, and what it means."""

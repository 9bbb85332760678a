"""Parts of single methods."""

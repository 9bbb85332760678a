"""From a download to the files that datasets read. Imports no torch."""

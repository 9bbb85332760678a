"""Small generated downloads, a module for each dataset, in the form in which it is distributed."""

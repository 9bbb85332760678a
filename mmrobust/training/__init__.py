"""How one run happens, from its folder to its result."""

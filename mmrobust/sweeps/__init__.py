"""Many runs from one command line: which there are, what starts them, and searches among them."""

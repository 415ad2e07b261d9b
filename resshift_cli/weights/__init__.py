"""Which models exist, and how their files get here, are checked and loaded."""

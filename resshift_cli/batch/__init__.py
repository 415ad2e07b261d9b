"""A folder of images: what is there, what is done, and what is left to do."""

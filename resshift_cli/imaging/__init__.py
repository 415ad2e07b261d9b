"""Files and pixels: read, encoded, named and written; no torch."""

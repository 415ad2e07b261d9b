"""A warm service for people and programs: a page and an API by HTTP, and JSON lines by pipes."""

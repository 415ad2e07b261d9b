"""An image through a model: tiles, the walk, colours, and what it takes."""

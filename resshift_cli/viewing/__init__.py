"""Pictures beside each other, for people to look at: pages that need nothing but a browser."""

"""Who did what and who was refused, in files that can only grow, and whose every line vouches for all before it."""

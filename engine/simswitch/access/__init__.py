"""What callers prove themselves with: tokens of people, certificates of access servers."""

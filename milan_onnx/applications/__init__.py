"""What is done with descriptions once they are there."""

"""What a file is, and whether its policy plays as it is said to."""

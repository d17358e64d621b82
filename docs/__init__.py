"""The documentation, and the program that writes its pages on the shipped configs."""

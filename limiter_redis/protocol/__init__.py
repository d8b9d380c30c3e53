"""What is said to a server, and what its replies mean: pure, without I/O."""

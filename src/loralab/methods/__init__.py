"""Ways to train a backbone, one a file: each puts its modules in place and says what is trained."""

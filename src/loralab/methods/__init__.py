"""Ways to adapt a frozen backbone, one a file: each puts its modules in place and leaves the rest frozen."""

"""What can be set, what is allowed, and the command that makes a config again."""

"""How what a method trained is written to disk and read again."""

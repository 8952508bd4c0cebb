"""The schemas of all settings, their checks, and the command that reproduces a config."""

"""What is private or unstable in the libraries that loralab uses, a module per library. Imports nothing of loralab."""

"""What is private or unstable in the libraries that loralab stands on: one module a library, and nothing of ours."""

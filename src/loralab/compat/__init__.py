"""What is private or unstable in the libraries that loralab stands on, a module for each; it imports none of ours."""

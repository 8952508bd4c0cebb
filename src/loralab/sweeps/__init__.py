"""Many runs: a study's file, grid and selection; the scheduler, and the pool of worker processes that trains them."""

"""Sweeps: grids of runs (grid, select), and the pool of worker processes that trains them (engine, pool, worker)."""

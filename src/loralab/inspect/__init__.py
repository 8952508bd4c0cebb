"""Trained adapters: their updates, spectra, overlaps and probes."""

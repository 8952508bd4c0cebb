"""Studies: a sweep's results as tables, intervals, figures and claims."""

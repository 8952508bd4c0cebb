"""What loralab uses of submitit's internals: its signal handlers, and its error where SLURM is missing.

Written for submitit 1.5.4. Where it has changed, a preempted job ends as on any signal: its checkpoint is written, and
the same command goes on; a machine without SLURM shows submitit's error.
"""

import signal

__all__ = ["handles", "lacks_slurm"]


def handles(number: int) -> bool:
    """Whether a signal's handler in this process is submitit's."""
    return str(getattr(signal.getsignal(number), "__module__", None)).startswith("submitit.")


def lacks_slurm(error: BaseException) -> bool:
    """Whether this is what submitit raises on a machine without srun."""
    return type(error) is RuntimeError and 'Could not detect "srun"' in str(error)

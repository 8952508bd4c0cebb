"""What is known of submitit's inside, in this one place: its signal handlers, and how it says that SLURM is missing.

Read from submitit 1.5.4. Where it has changed, a job that is preempted ends as any process that a signal ends: its
checkpoint is written, and the same command goes on; and a machine without SLURM shows submitit's own error.
"""

import signal

__all__ = ["handles", "lacks_slurm"]


def handles(number: int) -> bool:
    """Whether a signal's handler in this process is submitit's."""
    return str(getattr(signal.getsignal(number), "__module__", None)).startswith("submitit.")


def lacks_slurm(error: BaseException) -> bool:
    """Whether this is what submitit raises on a machine without srun."""
    return type(error) is RuntimeError and 'Could not detect "srun"' in str(error)

"""JAX in a process that decides events one after the other."""

import os

__all__ = ["use_one_thread"]


def use_one_thread() -> None:
    """Lets JAX compute on one thread of the processor's.

    A step for one event is some dozens of small operations, each waiting for the one before: shared out among threads,
    as XLA does with what touches large tables, they take longer than on one, and whoever waits for work keeps a core
    busy that HTTP and the ledger need. JAX's own variable ``PJRT_NPROC`` asks for another number.

    To be called before anything is computed: XLA makes its threads then, and keeps them. What runs later in this
    process, or is started by it, is on one thread, too.
    """
    os.environ.setdefault("PJRT_NPROC", "1")
    import jax

    # a thread of its own for what is computed costs more than it gains, for the one that asks waits for it
    jax.config.update("jax_cpu_enable_async_dispatch", False)

"""The proof for the workers of a broker plugin: real processes, which are killed and frozen while events flow.

In reading order: `shop` (the app that the processes run), `evidence` (what they must have done), `proof` (the faults).
"""

from diator_conformance.workers.evidence import WorkerFindings
from diator_conformance.workers.proof import prove_workers

__all__ = ["WorkerFindings", "prove_workers"]

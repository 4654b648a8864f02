"""The endpoints of one pool as columns, and the leases on their capacity."""

from epp.core.pool.lease import Lease
from epp.core.pool.pool import Mask, Pool

__all__ = ["Lease", "Mask", "Pool"]

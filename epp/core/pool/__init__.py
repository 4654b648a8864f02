"""The endpoints of one pool as columns, and the leases on their capacity."""

from epp.core.pool.effective import EffectiveLoad
from epp.core.pool.lease import Lease
from epp.core.pool.load import EngineLoad
from epp.core.pool.pool import Column, Mask, Pool

__all__ = ["Column", "EffectiveLoad", "EngineLoad", "Lease", "Mask", "Pool"]

"""Wrong implementations, one fault each, by class. Every one of them must be caught.

``BOTH`` shows in the results of ``attend`` alone; ``OPERATIONS`` needs the operation itself.
"""

import faulty_attending
import faulty_backward
import faulty_buffers
import faulty_index_loss
import faulty_selecting

BOTH = [*faulty_selecting.BOTH, *faulty_attending.BOTH, *faulty_buffers.BOTH]
OPERATIONS = [
    *faulty_selecting.OPERATIONS,
    *faulty_attending.OPERATIONS,
    *faulty_backward.OPERATIONS,
    *faulty_index_loss.OPERATIONS,
    *faulty_buffers.OPERATIONS,
]

"""Arrays that nobody counts: a slice of a counted array costs two atomic instructions, of these none.

Numba counts references to an array's memory wherever a slice is made. In loops that take slices for every
row of a graph that is most of the time.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils
from numba.extending import intrinsic


def _borrow(typing_context, array):
    """The same array without ownership: valid only while the array it was made from is alive."""

    def codegen(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        for owner in ("meminfo", "parent"):
            setattr(view, owner, cgutils.get_null_value(getattr(view, owner).type))
        return view._getvalue()

    return array(array), codegen


borrow: Any = intrinsic(_borrow)

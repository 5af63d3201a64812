"""Words of 64 bits as sets: counting and finding bits, and the k smallest of a few numbers without a branch.

A branch that depends on random numbers is guessed wrongly half of the time, which costs more than comparing
all with all in vector registers. The code is LLVM's own and runs on any processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


def _ones(typing_context, mask):
    """Number of bits that are set."""

    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), codegen


def _first(typing_context, mask):
    """Place of the lowest bit that is set; there must be one."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


def _lowest(lanes: int):
    """``lowest(word, size, k)``: which of the first ``size`` <= lanes words are the k smallest, as bits.

    Words lie in a uint64 array of at least ``lanes`` elements and are below 2^63; their upper 32 bits are
    compared. Where two of these are equal there may be more or fewer than k.
    """

    def lowest(typing_context, word, size, k):
        def codegen(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            _, size, k = arguments
            return _compare_all(builder, array.data, size, k, lanes)

        return types.uint64(word, types.int64, types.int64), codegen

    return intrinsic(lowest)


def _compare_all(builder, data, size, k, lanes):
    narrow = ir.VectorType(ir.IntType(32), lanes)
    wide = ir.VectorType(ir.IntType(64), lanes)

    def spread(value):
        value = builder.trunc(value, ir.IntType(32))
        one = builder.insert_element(ir.Constant(narrow, ir.Undefined), value, ir.IntType(32)(0))
        return builder.shuffle_vector(one, one, ir.Constant(narrow, [0] * lanes))

    word = builder.load(builder.bitcast(data, wide.as_pointer()), align=8)
    upper = builder.trunc(builder.lshr(word, ir.Constant(wide, [31] * lanes)), narrow)
    there = builder.icmp_unsigned("<", ir.Constant(narrow, list(range(lanes))), spread(size))
    upper = builder.select(there, upper, ir.Constant(narrow, [0xFFFFFFFF] * lanes))
    rank = ir.Constant(narrow, [0] * lanes)
    for j in range(lanes):
        other = builder.shuffle_vector(upper, upper, ir.Constant(narrow, [j] * lanes))
        # A comparison that holds is -1 when its sign is extended.
        rank = builder.sub(rank, builder.sext(builder.icmp_unsigned(">", upper, other), narrow))
    kept = builder.and_(builder.icmp_unsigned("<", rank, spread(k)), there)
    return builder.zext(builder.bitcast(kept, ir.IntType(lanes)), ir.IntType(64))


ones: Any = intrinsic(_ones)
first: Any = intrinsic(_first)
lowest16: Any = _lowest(16)
lowest32: Any = _lowest(32)

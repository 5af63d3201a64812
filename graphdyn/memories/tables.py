"""Tables of what hops wrote for every node, each row with the step that wrote it.

Shapes: N nodes, R rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphdyn.kernels.draw import take_rows
from graphdyn.kernels.rows import put_rows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Tables:
    """One (N, F) table a hop, with an age for every row.

    Args:
        widths: F by hop.
        num_nodes: N.
        dtype: A key of :data:`DTYPES`; rows are stored so, and read as float32.
        device: Where tables lie.
        pin: Page-locked memory, for tables on CPU that a GPU reads.
    """

    def __init__(
        self,
        widths: Mapping[int, int],
        num_nodes: int,
        *,
        dtype: str = "float32",
        device: torch.device | str = "cpu",
        pin: bool = False,
    ):
        def table(*shape: int, dtype: torch.dtype, fill: int = 0) -> Tensor:
            return torch.full(shape, fill, dtype=dtype, device=device, pin_memory=pin)

        kind = DTYPES[dtype]
        self.rows = {hop: table(num_nodes, f, dtype=kind) for hop, f in widths.items()}
        self.written = {h: table(num_nodes, dtype=torch.int32, fill=-1) for h in widths}

    def pull(self, hop: int, ids: Tensor) -> Tensor:
        """(R, F) float32 rows on the device of the ids; zeros where nothing was ever written."""
        table = self.rows[hop]
        rows = take_rows(table, ids.to(table.device))
        assert isinstance(rows, Tensor)
        return rows.to(ids.device, torch.float32, non_blocking=True)

    def push(self, hop: int, ids: Tensor, rows: Tensor, step: int, momentum: float = 1.0) -> None:
        """Write ``momentum`` of the new rows over the old ones; all of it where there are none yet.

        Args:
            hop: Which table.
            ids: (R,) distinct nodes.
            rows: (R, F).
            step: Now.
            momentum: Share of the new.
        """
        table = self.rows[hop]
        ids, rows = ids.to(table.device), rows.to(table.device, torch.float32)
        if momentum != 1.0:
            share = torch.where(self.written[hop][ids] < 0, 1.0, momentum).unsqueeze(1)
            rows = torch.lerp(table[ids].float(), rows, share)
        put_rows(table, ids, rows)
        self.written[hop][ids] = step

    def fill(self, rows: Sequence[Tensor], step: int) -> None:
        """Write all rows of all nodes, one (N, F) a hop, whatever stood there."""
        for hop, table in self.rows.items():
            table.copy_(rows[hop])
            self.written[hop].fill_(step)

    def forget(self, hop: int, ids: Tensor) -> None:
        """As if the rows of these nodes had never been written."""
        written = self.written[hop]
        written[ids.to(written.device)] = -1

    def blend(self, hop: int, ids: Tensor, rows: Tensor, share: float) -> None:
        """Move rows towards others by a share of the way; their ages stay, for they are not new.

        Args:
            hop: Which table.
            ids: (R,) distinct nodes.
            rows: (R, F).
            share: From 0 to 1.
        """
        table = self.rows[hop]
        ids, rows = ids.to(table.device), rows.to(table.device, torch.float32)
        put_rows(table, ids, torch.lerp(table[ids].float(), rows, share))

    def age(self, hop: int, ids: Tensor, step: int) -> Tensor:
        """(R,) steps since each row was written; ``step + 1`` where it never was."""
        written = self.written[hop]
        return (step - written[ids.to(written.device)]).to(ids.device)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        every = [*self.rows.values(), *self.written.values()]
        return sum(t.numel() * t.element_size() for t in every)

    def state(self) -> dict[str, Tensor]:
        """All tables by name."""
        rows = {f"rows-{hop}": t for hop, t in self.rows.items()}
        return rows | {f"written-{hop}": t for hop, t in self.written.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        for name, table in self.state().items():
            table.copy_(state[name])


class Ages:
    """Mean age of the rows that were read since the last report.

    Args:
        device: Of the ages.
    """

    def __init__(self, device: torch.device):
        self.counts = torch.zeros(2, dtype=torch.float64, device=device)  # their sum, their number

    def add(self, age: Tensor) -> None:
        """Count (R,) ages."""
        self.counts += torch.stack([age.sum(), age.new_tensor(age.numel())])

    def report(self) -> dict[str, float]:
        """Their mean, by name, from now on afresh; nothing where nothing was read."""
        total, count = self.counts.tolist()
        self.counts.zero_()
        return {"history_age": total / count} if count else {}


def table_bytes(widths: Mapping[int, int], num_nodes: int, dtype: str) -> int:
    """Bytes that :class:`Tables` will take."""
    size = DTYPES[dtype].itemsize
    return num_nodes * sum(f * size + 4 for f in widths.values())

"""What the makers' data sheets say of NVIDIA cards: products in bf16, memory, and the way to the host."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """One kind of card.

    Args:
        tflops: dense products in bf16 (fp16 where there is no bf16) that are summed in fp32.
        memory_tb_s: of its own memory.
        link_gb_s: from the host's memory, about three quarters of what PCIe names.
    """

    tflops: float
    memory_tb_s: float
    link_gb_s: float = 24.0


PCIE_5 = 50.0
CARDS: dict[str, Card] = {
    "b200": Card(2250, 8.0, PCIE_5),
    "gh200": Card(989, 4.0, 300.0),
    "h200": Card(989, 4.8, PCIE_5),
    "h100 pcie": Card(756, 2.0, PCIE_5),
    "h100 nvl": Card(835, 3.9, PCIE_5),
    "h100": Card(989, 3.35, PCIE_5),
    "a100": Card(312, 1.9),
    "a40": Card(150, 0.7),
    "a30": Card(165, 0.93),
    "a10": Card(125, 0.6),
    "l40s": Card(362, 0.86),
    "l40": Card(181, 0.86),
    "l4": Card(121, 0.3),
    "t4": Card(65, 0.32, 12.0),
    "v100": Card(125, 0.9, 12.0),
    "rtx pro 6000": Card(503, 1.79, PCIE_5),
    "rtx 6000 ada": Card(364, 0.96),
    "rtx a6000": Card(155, 0.77),
    "rtx a5000": Card(111, 0.77),
    "rtx a4000": Card(77, 0.45),
    "rtx 5090": Card(209, 1.79, PCIE_5),
    "rtx 5080": Card(113, 0.96, PCIE_5),
    "rtx 5070 ti": Card(88, 0.9, PCIE_5),
    "rtx 5070": Card(62, 0.67, PCIE_5),
    "rtx 5060": Card(38, 0.45, PCIE_5 / 2),
    "rtx 4090": Card(165, 1.01),
    "rtx 4080": Card(97, 0.72),
    "rtx 4070 ti": Card(80, 0.5),
    "rtx 4070": Card(58, 0.5),
    "rtx 4060 ti": Card(44, 0.29, 12.0),
    "rtx 4060": Card(30, 0.27, 12.0),
    "rtx 3090": Card(71, 0.94),
    "rtx 3080": Card(60, 0.76),
    "rtx 3070": Card(41, 0.45),
    "rtx 3060": Card(25, 0.36),
}
"""By what stands in the driver's name of the card."""


def card_named(name: str) -> Card | None:
    """The card that a driver calls so; None if it is not in the table."""
    words = " ".join(name.lower().replace("-", " ").split())
    found = [known for known in CARDS if f" {known} " in f" {words} "]
    return CARDS[max(found, key=len)] if found else None

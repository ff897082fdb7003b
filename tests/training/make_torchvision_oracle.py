"""Write down what torchvision's SSD matching and loss give, for `test_loss.py`.

Run in an environment whose torchvision can be imported, from the root of the repository:
`python -m tests.training.make_torchvision_oracle`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from tests.training.torchvision_cases import SIZE, Case, cases, overfull

ORACLE = Path(__file__).parent / "engine" / "torchvision_oracle.json"


def answer(case: Case) -> dict[str, Any]:
    """Run torchvision on a batch."""
    anchors = box_convert(torch.from_numpy(case.defaults) * SIZE, "cxcywh", "xyxy")
    targets = [
        {"boxes": torch.from_numpy(boxes) * SIZE, "labels": torch.from_numpy(labels)}
        for boxes, labels in zip(case.boxes, case.labels, strict=True)
    ]
    matcher = SSDMatcher(0.5)
    matches = [
        matcher(box_iou(target["boxes"], anchors))
        if len(target["boxes"])
        else torch.full((len(anchors),), -1)  # as SSD.forward does
        for target in targets
    ]
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    model = SimpleNamespace(box_coder=coder, neg_to_pos_ratio=3)
    scores = torch.from_numpy(case.scores).requires_grad_()
    offsets = torch.from_numpy(case.offsets).requires_grad_()
    heads = {"bbox_regression": offsets, "cls_logits": scores}
    losses = SSD.compute_loss(model, targets, heads, [anchors] * len(targets), matches)
    torch.stack(list(losses.values())).sum().backward()
    found = [torch.nonzero(one >= 0).flatten() for one in matches]
    encoded = [
        coder.encode_single(target["boxes"][one[rows]], anchors[rows])
        for target, one, rows in zip(targets, matches, found, strict=True)
    ]
    return {
        "matched": [rows.tolist() for rows in found],
        "objects": [one[rows].tolist() for one, rows in zip(matches, found, strict=True)],
        "encoded": [float(f"{value:.8g}") for rows in encoded for value in rows.sum(1).tolist()],
        "scores": losses["classification"].item(),
        "offsets": losses["bbox_regression"].item(),
        "gradient": [_probed(scores, case.probe[0]), _probed(offsets, case.probe[1])],
    }


def _probed(tensor: torch.Tensor, probe: np.ndarray) -> list[float]:
    """Sum the gradient of each image, weighted by random numbers."""
    assert tensor.grad is not None
    return (tensor.grad * torch.from_numpy(probe)).sum((1, 2)).tolist()


def main() -> None:
    """Write the answers to all batches."""
    found = {name: answer(case) for name, case in {**cases(), "overfull": overfull()}.items()}
    facts = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    ORACLE.write_text(json.dumps({**facts, "cases": found}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="raise")
    main()

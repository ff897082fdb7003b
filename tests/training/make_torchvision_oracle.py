"""Record the results of torchvision's SSD matching and loss for `test_loss.py`.

Run from the root of the repository, in an environment with torchvision:
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
from numpy.typing import NDArray
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from tests.training.torchvision_cases import SIZE, Case, cases, overfull

ORACLE = Path(__file__).parent / "engine" / "torchvision_oracle.json"


def torchvision_result(case: Case) -> dict[str, Any]:
    """Return torchvision's matches, losses and gradients of a batch."""
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
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    matched = [torch.nonzero(objects >= 0).flatten() for objects in matches]
    encoded = [
        coder.encode_single(target["boxes"][objects[rows]], anchors[rows])
        for target, objects, rows in zip(targets, matches, matched, strict=True)
    ]
    return {
        "matched": [rows.tolist() for rows in matched],
        "objects": [objects[rows].tolist() for objects, rows in zip(matches, matched, strict=True)],
        "encoded": [float(f"{value:.8g}") for rows in encoded for value in rows.sum(1).tolist()],
        "scores": losses["classification"].item(),
        "offsets": losses["bbox_regression"].item(),
        "gradient": [
            _weighted_gradient(scores, case.probe[0]),
            _weighted_gradient(offsets, case.probe[1]),
        ],
    }


def _weighted_gradient(tensor: torch.Tensor, weights: NDArray[np.float32]) -> list[float]:
    """Return the weighted sum of the gradient of each image."""
    assert tensor.grad is not None
    sums: list[float] = (tensor.grad * torch.from_numpy(weights)).sum((1, 2)).tolist()
    return sums


def main() -> None:
    """Write the results of all batches."""
    batches = {**cases(), "overfull": overfull()}
    results = {name: torchvision_result(case) for name, case in batches.items()}
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    ORACLE.write_text(json.dumps({**versions, "cases": results}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="raise")
    main()

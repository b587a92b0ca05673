"""Augmentation of images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(x: Tensor, degrees: float = 5, scale: float = 0.05, shift: float = 1) -> Tensor:
    """Rotate, scale and shift each image by its own random amount: (B, C, H, W) -> (B, C, H, W).

    The angle is at most ±`degrees`, the scale between 1 - `scale` and 1 + `scale`, and the shift at most ±`shift`
    pixels in each direction. Pixels from outside the image repeat its border.
    """
    angle, zoom, dx, dy = (2 * torch.rand(4, len(x), 1, device=x.device) - 1).unbind()  # each (B, 1), in [-1, 1]
    angle, zoom = torch.deg2rad(degrees * angle), 1 + scale * zoom
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    dx, dy = 2 * shift / x.shape[-1] * dx, 2 * shift / x.shape[-2] * dy  # affine_grid: an image is 2 units wide
    rows = torch.cat([cos, -sin, dx], dim=1), torch.cat([sin, cos, dy], dim=1)  # each (B, 3)
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

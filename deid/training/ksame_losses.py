"""What the k-Same-Net is judged by. Each term can be left out, for the table of what each is good for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deid.models.ksame_net import CHANNELS
from deid.training.mixtures import contrast

WEIGHTS = {"pixel": 1.0, "gradient": 1.0, "feature": 0.5, "adversarial": 0.02}
TERMS = tuple(WEIGHTS)
AROUND = 0.05  # weight of what lies outside the head
WIDTHS = (24, 48, 64)  # channels of the patch discriminator


def weight(mask: Tensor) -> Tensor:
    """How much each pixel of heads [B, 1, S, S] counts, 1 on average."""
    near = AROUND + (1 - AROUND) * mask
    return near / near.mean()


def pixel(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of colours, on the head, and of masks, everywhere."""
    apart = (found - wanted).abs()
    return (apart[:, :3] * weight(wanted[:, 3:])).mean() + apart[:, 3:].mean()


def gradient(found: Tensor, wanted: Tensor) -> Tensor:
    """The same of differences between neighbours, at full and at half size."""
    total, on = found.new_zeros(()), weight(wanted[:, 3:])
    for _ in range(2):
        apart = found - wanted
        total = total + ((apart[..., 1:] - apart[..., :-1]).abs() * on[..., 1:]).mean()
        total = total + ((apart[..., 1:, :] - apart[..., :-1, :]).abs() * on[..., 1:, :]).mean()
        found, wanted, on = F.avg_pool2d(found, 2), F.avg_pool2d(wanted, 2), F.avg_pool2d(on, 2)
    return total / 2


def feature(found: Tensor, members: Tensor, mask: Tensor) -> Tensor:
    """How far the local contrast of pictures is from that of their members, in parts of it. No network is in it, so
    no foreign licence."""
    own = contrast(found[:, :3])
    on = F.interpolate(weight(mask), size=own.shape[-2:], mode="area")
    return ((own - members).abs() * on).mean() / members.mean()


class Patches(nn.Module):
    """Judges patches: logits [B, 1, s, s] of pictures [B, 4, S, S], above 0 where they look like a person's.

    PatchGAN (Isola et al. 2017) with spectral normalisation (Miyato et al. 2018). It also sees where a pixel is, since
    the faces are aligned.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = CHANNELS + 2
        for width in WIDTHS:
            conv = nn.Conv2d(inputs, width, 4, stride=2, padding=1)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        line = torch.linspace(-1, 1, pictures.shape[-1], device=pictures.device)
        place = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(len(pictures), -1, -1, -1)
        mask = pictures[:, 3:]
        seen = torch.cat([(pictures[:, :3] - 0.5) * mask * 4, mask * 2 - 1, place], 1)
        found: Tensor = self.layers(seen)
        return found


def fooled(patches: Patches, found: Tensor) -> Tensor:
    """The generator's side of the hinge loss (Lim, Ye 2017)."""
    return -patches(found).mean()


def caught(patches: Patches, found: Tensor, real: Tensor) -> Tensor:
    """The discriminator's side."""
    return F.relu(1 + patches(found.detach())).mean() + F.relu(1 - patches(real)).mean()


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Weighted sum of terms."""
    return torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()

"""Small networks in the layout of the well-known libraries: the kinds of blocks, joins and heads that real CNNs are made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int = 1, option: str = "B", groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        self.pad = 0
        if stride != 1 or inputs != channels:
            if option == "A":
                self.pad = (channels - inputs) // 2
            else:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        elif self.pad:
            identity = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int = 1, option: str = "B", groups: int = 1) -> None:
        super().__init__()
        width = channels * (2 if groups > 1 else 1)
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * channels, 1, bias=False), nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * channels:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, block: type[BasicBlock | Bottleneck], option: str = "B", groups: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stages = 8, []
        for channels, stride in ((8, 1), (12, 2)):
            stages.append(
                nn.Sequential(
                    block(inputs, channels, stride, option, groups), block(channels * block.expansion, channels, 1, option, groups)
                )
            )
            inputs = channels * block.expansion
        self.layer1, self.layer2 = stages
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1, self.conv1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1)))))))


class DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(3, 10, 3, padding=1, bias=False),
                norm0=nn.BatchNorm2d(10),
                relu0=nn.ReLU(inplace=True),
                denseblock1=DenseBlock(3, 10, 5),
                transition1=nn.Sequential(nn.BatchNorm2d(25), nn.ReLU(), nn.Conv2d(25, 12, 1, bias=False), nn.AvgPool2d(2, 2)),
                denseblock2=DenseBlock(2, 12, 5),
                norm5=nn.BatchNorm2d(22),
            )
        )
        self.classifier = nn.Linear(22, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(features, (1, 1)), 1))


class SqueezeExcite(nn.Module):
    """With convolutions, as in MobileNetV3 and EfficientNet."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.SiLU(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class LinearSE(nn.Module):
    """With linear layers, as in the SENet of Hu et al."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, stride: int, expand: int, gate: type[nn.Module] | None = None, act: type[nn.Module] = nn.ReLU6
    ) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = [conv_bn(inputs, hidden, 1, act=act), conv_bn(hidden, hidden, 3, stride, hidden, act=act)]
        if gate:
            layers.append(gate(hidden, max(1, inputs // 4)))  # type: ignore[call-arg]
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, gate: type[nn.Module] | None = None, act: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, 2, act=act),
            InvertedResidual(8, 8, 1, 1, gate, act),
            InvertedResidual(8, 12, 2, 3, gate, act),
            InvertedResidual(12, 12, 1, 3, gate, act),
            conv_bn(12, 32, 1, act=act),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class MobileNetV3Head(nn.Module):
    """A head of 1 x 1 convolutions behind the pooling, and Hardswish."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 8, 3, 2, act=nn.Hardswish), conv_bn(8, 16, 3, act=nn.Hardswish))
        self.pool, self.conv_head, self.act = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 24, 1), nn.Hardswish()
        self.classifier = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv_head(self.pool(self.features(x))))
        return self.classifier(x.view(x.size(0), -1))


class DropPath(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * keep / (1 - self.p)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(0.5 * torch.ones(channels))
        self.drop_path = DropPath(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12, eps=1e-6))
        self.stage1 = nn.Sequential(ConvNeXtBlock(12), ConvNeXtBlock(12))
        self.down = nn.Sequential(LayerNorm2d(12, eps=1e-6), nn.Conv2d(12, 20, 2, 2))
        self.stage2 = ConvNeXtBlock(20)
        self.norm, self.head = nn.LayerNorm(20, eps=1e-6), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))


class TorchvisionConvNeXtBlock(nn.Module):
    """The block as a chain with Permute modules and a scale of shape (C, 1, 1)."""

    class Permute(nn.Module):
        def __init__(self, dims: list[int]) -> None:
            super().__init__()
            self.dims = dims

        def forward(self, x: Tensor) -> Tensor:
            return torch.permute(x, self.dims)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            self.Permute([0, 2, 3, 1]),
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            self.Permute([0, 3, 1, 2]),
        )
        self.layer_scale = nn.Parameter(torch.ones(channels, 1, 1) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer_scale * self.block(x) + x


def torchvision_convnext() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12))
    return nn.Sequential(stem, TorchvisionConvNeXtBlock(12), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(12, 10))


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(inputs, 6, 1)
        self.branch2 = nn.Sequential(conv_bn(inputs, 4, 1), conv_bn(4, 8, 3))
        self.branch3 = nn.Sequential(
            nn.Conv2d(inputs, 4, 1), nn.Conv2d(4, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 6, (7, 1), padding=(3, 0)), nn.ReLU()
        )
        self.branch_pool = conv_bn(inputs, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), pooled], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.block1, self.block2 = Inception(8), Inception(24)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(F.max_pool2d(self.block1(self.stem(x)), kernel_size=3, stride=2))
        return self.fc(self.dropout(x.mean((2, 3))))


class VGG(nn.Module):
    """With the positional head of VGG and AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)
        )
        self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(nn.Linear(16 * 9, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class DoubleConv(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(conv_bn(inputs, outputs), conv_bn(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module = (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) if bilinear else nn.ConvTranspose2d(inputs, inputs // 2, 2, 2)
        )
        self.conv = DoubleConv(inputs + outputs if bilinear else inputs // 2 + outputs, outputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = self.up(deep)
        rows, columns = skip.size()[2] - deep.size()[2], skip.size()[3] - deep.size()[3]
        deep = F.pad(deep, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, deep], dim=1))


class UNet(nn.Module):
    def __init__(self, bilinear: bool = False, classes: int = 3, kernel: int = 1) -> None:
        super().__init__()
        self.inc = DoubleConv(1, 8)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(16, 20))
        self.up1, self.up2 = Up(20, 16, bilinear), Up(16, 8, bilinear)
        self.outc = nn.Conv2d(8, classes, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        return self.outc(self.up2(self.up1(x3, x2), x1))


class FPN(nn.Module):
    """Two maps of features, the deeper one upsampled onto the other; returned in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = conv_bn(3, 8), conv_bn(8, 16, 3, 2)
        self.inner = nn.ModuleList([nn.Conv2d(8, 12, 1), nn.Conv2d(16, 12, 1)])
        self.layer = nn.ModuleList([nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c1 = self.stem(x)
        c2 = self.deep(c1)
        p2 = self.inner[1](c2)
        p1 = self.inner[0](c1) + F.interpolate(p2, size=c1.shape[-2:], mode="bilinear")
        return {"p1": self.layer[0](p1), "p2": self.layer[1](p2)}


class DeepLab(nn.Module):
    """Dilated convolutions, and a branch that is pooled and spread again."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = conv_bn(3, 12)
        self.atrous = nn.Sequential(nn.Conv2d(12, 8, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 8, 1, bias=False), nn.ReLU())
        self.project = nn.Sequential(conv_bn(16, 8, 1), nn.Dropout(0.5))
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = self.backbone(x)
        pooled = F.interpolate(self.pooling(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        y = self.head(self.project(torch.cat([self.atrous(x), pooled], dim=1)))
        return F.interpolate(y, size=size, mode="bilinear", align_corners=False)


class Norms(nn.Module):
    """GroupNorm, GroupNorm(1), InstanceNorm, PReLU for each channel, padding layers and sub-pixel convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8), nn.PReLU(8),
            nn.ZeroPad2d(1), nn.Conv2d(8, 16, 3), nn.GroupNorm(1, 16), nn.LeakyReLU(0.1),
            nn.ReplicationPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.ELU(), nn.Dropout2d(0.1),
            nn.PixelShuffle(2), nn.Conv2d(4, 2, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(x))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(conv_bn(1, 8), nn.MaxPool2d(2), conv_bn(8, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.embed(a) - self.embed(b)).pow(2).sum(1)


class TwoInputsTwoHeads(nn.Module):
    """An image, a map beside it, and numbers that have no position; a class and a map come out."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.map = conv_bn(3, 8), conv_bn(1, 4)
        self.trunk = conv_bn(12, 16)
        self.numbers = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
        self.classes, self.depth = nn.Linear(16 + 7, 4), nn.Sequential(conv_bn(16, 8), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, image: Tensor, extra: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(torch.cat([self.image(image), self.map(extra)], 1))
        return self.classes(torch.cat([x.mean((2, 3)), self.numbers(numbers)], 1)), self.depth(x)


class AllConvolutional(nn.Module):
    """Classes from a convolution, as in SqueezeNet: 10 have to stay 10."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 8), conv_bn(8, 16, 3, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(16, 10, kernel), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class Denoiser(nn.Module):
    """DnCNN: the noise is subtracted from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), conv_bn(8, 8), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.net(x)


class SpatialAttention(nn.Module):
    """CBAM: a map from the mean and the maximum over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = conv_bn(3, 8), nn.Conv2d(2, 1, 7, padding=3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pair = torch.cat([torch.mean(x, dim=1, keepdim=True), torch.max(x, dim=1, keepdim=True)[0]], dim=1)
        x = x * torch.sigmoid(self.gate(pair))
        return self.head(x.mean(dim=(2, 3)))


class CrossStage(nn.Module):
    """Half of the channels go past the block, as in CSPNet; standardised images."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.stem, self.block, self.head = conv_bn(3, 16), conv_bn(8, 8), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / 0.25)
        one, other = x.chunk(2, dim=1)
        x = torch.cat((one, self.block(other)), dim=1)
        return self.head(F.adaptive_max_pool2d(x, 1).flatten(1))


class VolumeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(3, 2, 1), nn.Conv3d(6, 8, 3, padding=1), nn.ReLU()
        )
        self.avgpool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(x)).flatten(1))


class VolumeSegmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 6, 3, padding=1), nn.ConvTranspose3d(8, 6, 2, 2)
        self.deep, self.pool, self.out = nn.Conv3d(6, 8, 3, padding=1), nn.AvgPool3d(2), nn.Conv3d(12, 2, 1)
        self.norm = nn.InstanceNorm3d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.down(x)))
        return self.out(torch.cat([x, self.up(F.relu(self.deep(self.pool(x))))], 1))


IMAGE = (2, 3, 33, 33)
EVEN = (2, 3, 16, 16)
GRAY = (2, 1, 16, 16)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "ResNet-18": (lambda: ResNet(BasicBlock), (IMAGE,)),
    "ResNet-18, option A": (lambda: ResNet(BasicBlock, "A"), (IMAGE,)),
    "ResNet-50": (lambda: ResNet(Bottleneck), (IMAGE,)),
    "ResNeXt": (lambda: ResNet(Bottleneck, groups=4), (IMAGE,)),
    "DenseNet": (DenseNet, (EVEN,)),
    "MobileNetV2": (MobileNetV2, (IMAGE,)),
    "EfficientNet": (lambda: MobileNetV2(SqueezeExcite, nn.SiLU), (IMAGE,)),
    "SENet": (lambda: MobileNetV2(LinearSE, nn.ReLU), (IMAGE,)),
    "MobileNetV3 head": (MobileNetV3Head, (IMAGE,)),
    "ConvNeXt": (ConvNeXt, ((2, 3, 24, 24),)),
    "ConvNeXt, torchvision": (torchvision_convnext, (EVEN,)),
    "Inception": (GoogLeNet, ((2, 3, 29, 29),)),
    "U-Net": (UNet, (GRAY,)),
    "U-Net, bilinear": (lambda: UNet(True), (GRAY,)),
    "U-Net, head of 3 x 3": (lambda: UNet(kernel=3), (GRAY,)),
    "FPN": (FPN, ((2, 3, 17, 17),)),
    "DeepLab": (DeepLab, (EVEN,)),
    "norms and padding": (Norms, (GRAY,)),
    "siamese": (Siamese, (GRAY, GRAY)),
    "two inputs, two heads": (TwoInputsTwoHeads, (EVEN, GRAY, (2, 5))),
    "all convolutional": (AllConvolutional, (IMAGE,)),
    "all convolutional, 3 x 3": (lambda: AllConvolutional(3), (IMAGE,)),
    "denoiser": (Denoiser, (GRAY,)),
    "spatial attention": (SpatialAttention, (EVEN,)),
    "cross-stage": (CrossStage, (EVEN,)),
}
VOLUMES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "3-D classifier": (VolumeNet, ((2, 1, 7, 7, 7),)),
    "3-D segmentation": (VolumeSegmentation, ((2, 1, 6, 6, 6),)),
}

"""What each network is and costs, without torch: for `edgeseg models`, the documentation and the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CARDS", "Card", "Cost"]


@dataclass(frozen=True)
class Cost:
    """What one variant of a network costs, in `eval()`.

    Attributes:
        options: what `create` takes beside the name, `classes` among them.
        parameters: exact number.
        gmacs: 10^9 multiply-accumulates of convolutions and linear layers at `size`, four decimals; None where unknown.
        size: (height, width) of the input that `gmacs` counts.
    """

    options: dict[str, Any]
    parameters: int
    gmacs: float | None = None
    size: tuple[int, int] = (512, 1024)


@dataclass(frozen=True)
class Card:
    """Where a network comes from and what it costs.

    Attributes:
        name: what `create` takes.
        title: the name as published.
        paper: authors, title, venue, year, arXiv number.
        source: the public code whose counts these are.
        stride: of the last feature map before the prediction layer.
        costs: variants with exact counts.
        deploy: what `create(..., deploy=True)` changes and why; empty where the published network is taken as it is.
    """

    name: str
    title: str
    paper: str
    source: str
    stride: int
    costs: tuple[Cost, ...]
    deploy: str = ""


CARDS: dict[str, Card] = {
    "bisenetv1": Card(
        name="bisenetv1",
        title="BiSeNet",
        paper="C. Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation, ECCV 2018, "
        "arXiv 1808.00897",
        source="ycszen/TorchSeg",
        stride=8,
        costs=(
            Cost({"backbone": "resnet18", "classes": 19}, 12_894_163, 25.9310),
            Cost({"backbone": "resnet18", "classes": 19}, 12_894_163, 12.1553, (384, 640)),
            Cost({"backbone": "xception39", "classes": 19}, 1_541_963, 6.9406),
            Cost({"backbone": "xception39", "classes": 19}, 1_541_963, 3.2535, (384, 640)),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, the "
        "published weights lose accuracy on it",
    ),
    "bisenetv2": Card(
        name="bisenetv2",
        title="BiSeNetV2",
        paper="C. Yu et al., BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic "
        "Segmentation, IJCV 2021, arXiv 2004.02147",
        source="CoinCheung/BiSeNet",
        stride=8,
        costs=(Cost({"classes": 19}, 3_358_627, 24.6033), Cost({"classes": 19}, 3_358_627, 98.4132, (1024, 2048))),
    ),
    "dabnet": Card(
        name="dabnet",
        title="DABNet",
        paper="G. Li et al., DABNet: Depth-wise Asymmetric Bottleneck for Real-time Semantic Segmentation, BMVC 2019, "
        "arXiv 1907.11357",
        source="Reagan1311/DABNet",
        stride=8,
        costs=(
            Cost({"classes": 19}, 756_643, 10.2204),
            Cost({"classes": 19}, 756_643, 3.3685, (360, 480)),
            Cost({"classes": 11}, 754_571, 10.2034),
            Cost({"classes": 11}, 754_571, 3.3629, (360, 480)),
            Cost({"classes": 20}, 756_902, 10.2225),
            Cost({"classes": 20}, 756_902, 3.3692, (360, 480)),
        ),
        deploy="every BatchNorm behind its convolution, into which it folds, and ReLU in place of PReLU: the published "
        "network normalises before its convolutions, after additions and concatenations; trained as such, the "
        "published weights do not fit it",
    ),
    "deeplabv1": Card(
        name="deeplabv1",
        title="DeepLab",
        paper="L.-C. Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, "
        "ICLR 2015, arXiv 1412.7062",
        source="the paper; pooling as in its released LargeFOV model",
        stride=8,
        costs=(
            Cost({"variant": "largefov", "classes": 21}, 20_505_429, 251.2640),
            Cost({"variant": "largefov", "classes": 19}, 20_503_379, 251.2472),
            Cost({"variant": "msc", "classes": 21}, 21_711_445, 261.1332),
        ),
    ),
    "deeplabv3": Card(
        name="deeplabv3",
        title="DeepLabv3",
        paper="L.-C. Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, "
        "arXiv 1706.05587",
        source="kazuto1011/deeplab-pytorch, with the stride of a bottleneck in its 3x3 convolution as in torchvision; "
        "the cascade from the paper, as no public code builds it",
        stride=16,
        costs=(
            Cost({"backbone": "resnet101", "head": "aspp", "output_stride": 16, "classes": 19}, 58_040_147, 134.3876),
            Cost({"backbone": "resnet101", "head": "aspp", "output_stride": 8, "classes": 19}, 58_040_147, 477.4780),
            Cost({"backbone": "resnet101", "head": "aspp", "output_stride": 16, "classes": 21}, 58_040_661, 134.3886),
            Cost({"backbone": "resnet50", "head": "aspp", "output_stride": 16, "classes": 19}, 39_048_019, 95.5987),
            Cost(
                {"backbone": "resnet101", "head": "cascade", "output_stride": 16, "classes": 19}, 82_702_419, 185.8622
            ),
            Cost({"backbone": "resnet50", "head": "cascade", "output_stride": 16, "classes": 19}, 63_710_291, 147.0733),
        ),
    ),
    "deeplabv3plus": Card(
        name="deeplabv3plus",
        title="DeepLabv3+",
        paper="L.-C. Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, "
        "ECCV 2018, arXiv 1802.02611",
        source="jfzhang95/pytorch-deeplab-xception (dense head), segmentation_models_pytorch (separable head)",
        stride=4,
        costs=(
            Cost({"backbone": "resnet101", "head": "dense", "classes": 19}, 59_343_795, 177.2183),
            Cost({"backbone": "resnet101", "head": "dense", "classes": 19}, 59_343_795, 92.8118, (513, 513)),
            Cost({"backbone": "resnet101", "head": "dense", "output_stride": 8, "classes": 19}, 59_343_795, 520.2788),
            Cost({"backbone": "resnet101", "head": "dense", "classes": 21}, 59_344_309, 92.8204, (513, 513)),
            Cost({"backbone": "resnet101", "head": "separable", "classes": 19}, 45_674_339, 112.0618),
            Cost({"backbone": "xception65", "head": "dense", "classes": 19}, 54_704_803, 165.4224),
            Cost({"backbone": "xception65", "head": "dense", "classes": 19}, 54_704_803, 86.5685, (513, 513)),
            Cost({"backbone": "xception65", "head": "dense", "output_stride": 8, "classes": 19}, 54_704_803, 483.0116),
            Cost({"backbone": "xception65", "head": "dense", "classes": 21}, 54_705_317, 165.4392),
            Cost({"backbone": "xception65", "head": "separable", "classes": 19}, 41_041_491, 100.4673),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights lose accuracy on it",
    ),
    "espnet": Card(
        name="espnet",
        title="ESPNet",
        paper="S. Mehta et al., ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation, "
        "ECCV 2018, arXiv 1803.06815",
        source="sacmehta/ESPNet",
        stride=2,
        costs=(
            Cost({"q": 8, "classes": 20}, 365_109, 4.7802),
            Cost({"q": 8, "classes": 19}, 363_462, 4.6703),
            Cost({"q": 5, "classes": 20}, 267_957, 3.9938),
            Cost({"q": 5, "classes": 19}, 266_310, 3.8839),
            Cost({"q": 3, "classes": 20}, 203_189, 3.4695),
            Cost({"q": 3, "classes": 19}, 201_542, 3.3596),
        ),
        deploy="ReLU in place of PReLU, so that a convolution and its activation are one INT8 kernel on all engines; "
        "trained as such, the published weights do not fit it",
    ),
    "espnetv2": Card(
        name="espnetv2",
        title="ESPNetv2",
        paper="S. Mehta et al., ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural "
        "Network, CVPR 2019, arXiv 1811.11431",
        source="sacmehta/EdgeNets",
        stride=2,
        costs=(
            Cost({"width": 0.5, "classes": 20}, 80_342, 0.5962),
            Cost({"width": 0.5, "classes": 19}, 79_452, 0.5647),
            Cost({"width": 0.5, "classes": 21}, 80_353, 0.1681, (384, 384)),
            Cost({"width": 1.0, "classes": 20}, 234_010, 1.0853),
            Cost({"width": 1.0, "classes": 19}, 232_992, 1.0535),
            Cost({"width": 1.0, "classes": 21}, 234_021, 0.3056, (384, 384)),
            Cost({"width": 1.25, "classes": 20}, 343_106, 1.4090),
            Cost({"width": 1.25, "classes": 19}, 342_024, 1.3770),
            Cost({"width": 1.25, "classes": 21}, 343_117, 0.3967, (384, 384)),
            Cost({"width": 1.5, "classes": 20}, 468_362, 1.7133),
            Cost({"width": 1.5, "classes": 19}, 467_216, 1.6812),
            Cost({"width": 1.5, "classes": 21}, 468_373, 0.4822, (384, 384)),
            Cost({"width": 2.0, "classes": 20}, 789_242, 2.6977),
            Cost({"width": 2.0, "classes": 19}, 787_968, 2.6654),
            Cost({"width": 2.0, "classes": 21}, 789_253, 0.7591, (384, 384)),
        ),
        deploy="ReLU in place of PReLU, bilinear resizes with align_corners=False (the only placement that a DLA "
        "takes), and no unused activations in the strided units; trained as such, the published weights do not fit it. "
        "Adaptive pooling to sizes that do not divide is exported as constant averaging matrices in both variants",
    ),
    "fastscnn": Card(
        name="fastscnn",
        title="Fast-SCNN",
        paper="R. P. K. Poudel et al., Fast-SCNN: Fast Semantic Segmentation Network, BMVC 2019, arXiv 1902.04502",
        source="xiaoyufenfei/Efficient-Segmentation-Networks",
        stride=8,
        costs=(Cost({"classes": 19}, 1_138_051, 1.6769),),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights lose accuracy on it. Adaptive pooling to sizes that do not divide is exported as constant "
        "averaging matrices in both variants",
    ),
    "pspnet": Card(
        name="pspnet",
        title="PSPNet",
        paper="H. Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv 1612.01105",
        source="hszhao/semseg",
        stride=8,
        costs=(
            Cost({"backbone": "resnet50", "classes": 19}, 46_715_347, 368.2494),
            Cost({"backbone": "resnet50", "classes": 19}, 46_715_347, 363.7772, (713, 713)),
            Cost({"backbone": "resnet50", "classes": 21}, 46_716_373, 161.6371, (473, 473)),
            Cost({"backbone": "resnet50", "classes": 150}, 46_782_550, 161.8748, (473, 473)),
            Cost({"backbone": "resnet101", "classes": 19}, 65_707_475, 523.4051),
            Cost({"backbone": "resnet101", "classes": 19}, 65_707_475, 517.1904, (713, 713)),
            Cost({"backbone": "resnet101", "classes": 21}, 65_708_501, 229.8207, (473, 473)),
            Cost({"backbone": "resnet101", "classes": 150}, 65_774_678, 230.0585, (473, 473)),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights lose accuracy on it. Adaptive pooling to sizes that do not divide is exported as constant "
        "averaging matrices in both variants",
    ),
    "refinenet": Card(
        name="refinenet",
        title="RefineNet",
        paper="G. Lin et al., RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation, "
        "CVPR 2017, arXiv 1611.06612",
        source="DrSleep/refinenet-pytorch",
        stride=4,
        costs=(
            Cost({"backbone": "resnet101", "classes": 19}, 118_047_827, 525.6470),
            Cost({"backbone": "resnet101", "classes": 19}, 118_047_827, 253.8975, (500, 500)),
            Cost({"backbone": "resnet101", "classes": 21}, 118_052_437, 525.7979),
            Cost({"backbone": "resnet101", "classes": 40}, 118_096_232, 527.2324),
            Cost({"backbone": "resnet50", "classes": 19}, 99_055_699, 486.8580),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights lose accuracy on it",
    ),
    "fcdensenet": Card(
        name="fcdensenet",
        title="FC-DenseNet (Tiramisu)",
        paper="S. Jegou et al., The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic "
        "Segmentation, CVPRW 2017, arXiv 1611.09326",
        source="bfortuner/pytorch_tiramisu",
        stride=1,
        costs=(
            Cost({"depth": 56, "classes": 19}, 1_378_339, 93.9787),
            Cost({"depth": 56, "classes": 11}, 1_376_795, 30.0266, (352, 480)),
            Cost({"depth": 56, "classes": 12}, 1_376_988, 30.0590, (352, 480)),
            Cost({"depth": 67, "classes": 19}, 3_465_555, 219.6089),
            Cost({"depth": 67, "classes": 11}, 3_463_243, 70.3831, (352, 480)),
            Cost({"depth": 67, "classes": 12}, 3_463_532, 70.4318, (352, 480)),
            Cost({"depth": 103, "classes": 19}, 9_324_147, 210.8116),
            Cost({"depth": 103, "classes": 11}, 9_322_091, 67.5913, (352, 480)),
            Cost({"depth": 103, "classes": 12}, 9_322_348, 67.6346, (352, 480)),
        ),
        deploy="every BatchNorm behind its convolution, into which it folds: the published network normalises "
        "concatenations before its convolutions; trained as such, published weights do not fit it",
    ),
    "fcn": Card(
        name="fcn",
        title="FCN-32s, FCN-16s, FCN-8s (VGG-16)",
        paper="E. Shelhamer, J. Long, T. Darrell, Fully Convolutional Networks for Semantic Segmentation, PAMI 2017, "
        "arXiv 1605.06211",
        source="shelhamer/fcn.berkeleyvision.org, wkentaro/pytorch-fcn",
        stride=1,
        costs=(
            Cost({"stride": 8, "classes": 19}, 134_456_985, 334.7820),
            Cost({"stride": 8, "classes": 21}, 134_489_759, 181.5290, (500, 500)),
            Cost({"stride": 8, "classes": 22}, 134_507_010, 269.7419, (640, 640)),
            Cost({"stride": 16, "classes": 19}, 134_723_574, 334.6628),
            Cost({"stride": 16, "classes": 21}, 134_815_994, 181.4481, (500, 500)),
            Cost({"stride": 32, "classes": 19}, 135_817_043, 334.5505),
            Cost({"stride": 32, "classes": 21}, 136_152_917, 181.3659, (500, 500)),
        ),
        deploy="every layer keeps its size in place of 100 zeros around the image and crops, a third less work at "
        "512x1024; published weights fit, but lose accuracy near the edges of the image",
    ),
    "segnet": Card(
        name="segnet",
        title="SegNet",
        paper="V. Badrinarayanan, A. Kendall, R. Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture "
        "for Image Segmentation, PAMI 2017, arXiv 1511.00561",
        source="alexgkendall/SegNet-Tutorial",
        stride=1,
        costs=(
            Cost({"classes": 19}, 29_453_971, 325.5451),
            Cost({"classes": 11}, 29_449_355, 106.7124, (360, 480)),
            Cost({"classes": 12}, 29_449_932, 106.8120, (360, 480)),
        ),
    ),
    "unet": Card(
        name="unet",
        title="U-Net",
        paper="O. Ronneberger, P. Fischer, T. Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, "
        "MICCAI 2015, arXiv 1505.04597",
        source="milesial/Pytorch-UNet; without BatchNorm the paper's layers",
        stride=1,
        costs=(
            Cost({"upsampling": "transposed", "classes": 19}, 31_038_803, 385.9431),
            Cost({"upsampling": "transposed", "classes": 2}, 31_037_698, 238.8371, (572, 572)),
            Cost({"upsampling": "bilinear", "classes": 19}, 17_264_147, 320.4448),
            Cost({"upsampling": "bilinear", "classes": 2}, 17_263_042, 198.6961, (572, 572)),
            Cost({"batch_norm": False, "classes": 19}, 31_032_915, 385.9431),
            Cost({"batch_norm": False, "classes": 2}, 31_031_810),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights of the bilinear variant lose accuracy on it; transposed convolutions stay as they are",
    ),
}

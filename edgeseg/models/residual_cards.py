"""Cards of the networks on ResNets and their kin: Xception, WideResNet. See `edgeseg.models.cards`."""

from __future__ import annotations

from edgeseg.models.card import Card, Cost

__all__ = ["RESIDUAL"]

RESIDUAL: dict[str, Card] = {
    "danet": Card(
        name="danet",
        title="DANet",
        paper="J. Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, arXiv 1809.02983",
        source="junfu1115/DANet, without the two predictions that only training reads (19,494 parameters for 19 "
        "classes); GMACs are ours and leave out the products of attention",
        stride=8,
        costs=(
            Cost({"backbone": "resnet101", "classes": 19}, 66_435_285, 550.5318),
            Cost({"backbone": "resnet50", "classes": 19}, 47_443_157, 395.3761),
        ),
        deploy="the bilinear resize of the logits with align_corners=False, the only placement that a DLA takes; "
        "trained as such, published weights lose accuracy on it",
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
    "fastfcn": Card(
        name="fastfcn",
        title="FastFCN (joint pyramid upsampling)",
        paper="H. Wu et al., FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation, 2019, "
        "arXiv 1903.11816",
        source="wuhuikai/FastFCN, without the auxiliary head that only training reads and ImageNet's classifier that "
        "nothing reads; jpu=False is the dilated network that it is compared with",
        stride=8,
        costs=(
            Cost({"backbone": "resnet50", "head": "psp", "classes": 59}, 66_471_419, 135.9416, (512, 512)),
            Cost({"backbone": "resnet50", "head": "deeplabv3", "classes": 59}, 59_507_963, 122.4060, (512, 512)),
            Cost({"backbone": "resnet50", "head": "fcn", "classes": 59}, 52_835_835, 97.2345, (512, 512)),
            Cost({"backbone": "resnet101", "head": "psp", "classes": 59}, 85_463_547, 155.3360, (512, 512)),
            Cost({"backbone": "resnet101", "head": "deeplabv3", "classes": 59}, 78_500_091, 141.8005, (512, 512)),
            Cost({"backbone": "resnet101", "head": "fcn", "classes": 59}, 71_827_963, 116.6289, (512, 512)),
            Cost({"backbone": "resnet50", "head": "psp", "classes": 19}, 66_450_899, 271.6630),
            Cost(
                {"backbone": "resnet50", "head": "fcn", "jpu": False, "classes": 59}, 33_100_283, 145.5277, (512, 512)
            ),
        ),
        deploy="bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights lose accuracy on it. Adaptive pooling to sizes that do not divide is exported as constant "
        "averaging matrices in both variants",
    ),
    "gatedscnn": Card(
        name="gatedscnn",
        title="Gated-SCNN",
        paper="T. Takikawa et al., Gated-SCNN: Gated Shape CNNs for Semantic Segmentation, ICCV 2019, arXiv 1907.05740",
        source="nv-tlabs/GSCNN (wideresnet38), with a gradient computed in the network where its code runs Canny's "
        "edge detector outside; the ResNet trunks, their counts and all GMACs are ours",
        stride=2,
        costs=(
            Cost({"backbone": "wideresnet38", "classes": 19}, 137_278_190, 1510.4307),
            Cost({"backbone": "resnet50", "classes": 19}, 40_523_181, 419.3407),
            Cost({"backbone": "resnet101", "classes": 19}, 59_515_309, 574.4964),
        ),
        deploy="every BatchNorm of WideResNet-38 behind its convolution, into which it folds, no unread convolution, "
        "and bilinear resizes with align_corners=False, the only placement that a DLA takes; trained as such, "
        "published weights do not fit it",
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
    "masklab": Card(
        name="masklab",
        title="MaskLab",
        paper="L.-C. Chen et al., MaskLab: Instance Segmentation by Refining Object Detection with Semantic and "
        "Direction Features, CVPR 2018, arXiv 1712.04837",
        source="the paper's abstract and summaries of it, as no code was published; its class says what is the "
        "paper's and what was chosen. Parameters are of the whole network; the semantic network alone, which is "
        "exported and whose work is counted, has 42,539,091 of them with ResNet-101 and 19 classes",
        stride=16,
        costs=(
            Cost({"backbone": "resnet101", "output_stride": 16, "classes": 19}, 62_993_882, 103.7209),
            Cost({"backbone": "resnet101", "output_stride": 8, "classes": 19}, 62_993_882, 354.8130),
            Cost({"backbone": "resnet101", "output_stride": 16, "classes": 81}, 63_247_958, 103.9810),
            Cost({"backbone": "resnet50", "output_stride": 16, "classes": 19}, 44_001_754, 64.9320),
        ),
    ),
}

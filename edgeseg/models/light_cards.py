"""Cards of the networks for real time. See `edgeseg.models.cards`."""

from __future__ import annotations

from edgeseg.models.card import Card, Cost

__all__ = ["LIGHT"]

LIGHT: dict[str, Card] = {
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
}

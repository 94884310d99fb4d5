"""Cards of the networks before residual blocks: on VGG-16, U-shaped, dense. See `edgeseg.models.cards`."""

from __future__ import annotations

from edgeseg.models.card import Card, Cost

__all__ = ["CLASSIC"]

CLASSIC: dict[str, Card] = {
    "crfasrnn": Card(
        name="crfasrnn",
        title="CRF-as-RNN (FCN-8s)",
        paper="S. Zheng et al., Conditional Random Fields as Recurrent Neural Networks, ICCV 2015, arXiv 1502.03240",
        source="torrvision/crfasrnn, sadeepj/crfasrnn_pytorch; the mean field filters pixels and is not in the GMACs",
        stride=1,
        costs=(
            Cost({"stride": 8, "classes": 21}, 134_491_082, 181.5290, (500, 500)),
            Cost({"stride": 8, "classes": 19}, 134_458_068, 334.7820),
        ),
        deploy="the network as FCN's; the CRF is not in the ONNX file, its parameters are written beside it",
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
    "parsenet": Card(
        name="parsenet",
        title="ParseNet",
        paper="W. Liu, A. Rabinovich, A. C. Berg, ParseNet: Looking Wider to See Better, 2015, arXiv 1506.04579",
        source="the paper, on the trunk of deeplabv1; nobody publishes counts: these are ours",
        stride=8,
        costs=(
            Cost({"classes": 21}, 20_528_981, 251.4401),
            Cost({"classes": 21}, 20_528_981, 121.0748, (500, 500)),
            Cost({"classes": 19}, 20_524_883, 251.4066),
        ),
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

"""Frames in, ranges out: reads calibration and labelled frames, watches a float network on them, chooses INT8 ranges.

frames     folders, lists, globs and videos as RGB frames        images, video, png   how a file is decoded
datasets   frames with labels, by data set layout                label_images         how labels are decoded
measure    one pass over the frames -> a histogram by tensor     observers, probes    how a tensor is counted
ranges     histogram -> amax, the value that INT8 level 127 stands for
table      calibration.json                                      cache                TensorRT's calibration cache
"""

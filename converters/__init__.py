"""A graph in, a better graph out: from a float ONNX network to the INT8 graph of a bundle, and the proof that it holds.

convert    the recipe, step by step                          options, split      what it is told, which frames it takes
prepare    the canonical float graph                         read, load, opset   a file as a network
simplify, fold, rewrite, embed   one step each               graph, affine, macs   what they read of a graph
calibrate, place   ranges, and where Q/DQ stands             lint                what TensorRT would not run as meant
analyse, switches, segments, blocks   layers one by one      budget, costs, mixed   which of them stay in float
network, verify    both networks run and scored              report              the proof to look at
compare, sides     any two networks side by side             targets             the graph as each program takes it
"""
